"""The page of `status`: what runs where and how it does, as one HTML file that needs no network.

`day` gathers what happened lately, on the host; `traffic` reads the log of requests for it.
`render` makes the page of one host's answer or of a fleet's; `markup` escapes, `chart` draws.
"""
