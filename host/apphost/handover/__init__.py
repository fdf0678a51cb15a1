"""Hands a service over to another release, or to changed settings, without losing a request.

Stage by stage:

    standby  <name>-standby.service starts the release from its own path, with the settings on disk.
             It is judged on a private socket, and takes no connections from clients yet.
    workers  A new generation of background workers starts beside the one that is live.
    open     The standby accepts from the shared sockets as well.
    main     `current` moves, <name>.service restarts while the standby serves, and is judged on a
             private socket of its own. Then the standby finishes its requests and stops.
    bake     The service is asked for a while longer, and the workers have to stay up.
    commit   It is recorded as healthy, with a copy of its settings. The old generation of workers
             finishes what it is doing; timers are started, or started again where they changed.

What is about to happen is on disk before it happens (`state`). Whoever finds that file, the next
handover or the host when it boots, goes back to what was live before (`back`, `boot`).

`command` is the verb, and `unit` the systemd unit in which the work is done. `plan` decides what
there is to do, `forward` does it in the order above, `switch` has the steps that both directions
share, `judge` says whether what was started is healthy. `workers` is about workers and timers.
"""
