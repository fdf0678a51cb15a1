"""How the page looks: the colours of toll-app's own pages, light and dark, on any width."""

STYLE = """
:root {
  --ground: #f4f5f1; --card: #fff; --text: #1a2220; --quiet: #55615d; --line: #d9ded9;
  --accent: #1b5b51; --tint: #e4efeb; --fault: #a3301a; --fault-tint: #fbeae5;
  --wait: #7a5a00; --wait-tint: #f7efd8; --bar: #5f9a8d; color-scheme: light;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #111615; --card: #1a2120; --text: #e6ebe8; --quiet: #a2afaa; --line: #2e3936;
    --accent: #80cdbb; --tint: #1f332e; --fault: #ff9c85; --fault-tint: #361e18;
    --wait: #e6c46a; --wait-tint: #332b14; --bar: #4b8376; color-scheme: dark;
  }
}
*, ::before, ::after { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 1rem/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { margin: 0; font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 0; font-size: 1.25rem; overflow-wrap: anywhere; }
h3 { margin: 0 0 .75rem; font-size: 1.125rem; overflow-wrap: anywhere; }
h4 { margin: 1.25rem 0 .5rem; font-size: .9375rem; }
p { margin: .25rem 0; }
.quiet { color: var(--quiet); }
small, .small { color: var(--quiet); font-size: .875rem; }
section, article { margin-top: 1rem; padding: 1rem 1.25rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); }
.attention { border-color: var(--fault); background: var(--fault-tint); }
.attention ul { margin: 0; padding-left: 1.25rem; overflow-wrap: anywhere; }
.state { display: inline-block; margin-left: .5rem; padding: .05rem .6rem; border-radius: 1rem; background: var(--tint); }
.state { color: var(--accent); font-size: .875rem; font-weight: 600; vertical-align: middle; }
.state.down, .bad { color: var(--fault); }
.state.down { background: var(--fault-tint); }
.state.out { background: var(--wait-tint); color: var(--wait); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .75rem 1.5rem; margin: 0; }
dt { color: var(--quiet); font-size: .875rem; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border-top: 0; color: var(--quiet); font-size: .875rem; font-weight: 400; white-space: nowrap; }
td time, td code { white-space: nowrap; }

summary { cursor: pointer; font-size: .9375rem; font-weight: 700; }
details { margin-top: 1rem; }
svg { display: block; width: 100%; height: 7rem; }
svg .unread { fill: var(--line); opacity: .5; }
svg .good { fill: var(--bar); }
svg .failed { fill: var(--fault); }
svg .axis { stroke: var(--line); vector-effect: non-scaling-stroke; }
svg .deploy { stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke; }
svg .deploy.taken-back { stroke: var(--fault); stroke-dasharray: 4 3; }
.hours { display: flex; justify-content: space-between; color: var(--quiet); font-size: .8125rem; font-variant-numeric: tabular-nums; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0 0; color: var(--quiet); font-size: .875rem; }
.key span::before { display: inline-block; width: .7em; height: .7em; margin-right: .4em; background: var(--bar); content: ""; }
.key .failed::before { background: var(--fault); }
.key .deploy::before { width: 2px; height: 1em; background: var(--accent); vertical-align: -.1em; }
.key .taken-back::before { width: 2px; height: 1em; background: var(--fault); vertical-align: -.1em; }
footer { margin-top: 1.5rem; }
@media (max-width: 40rem) {
  main { padding: 1rem .75rem 2rem; }
  section, article { padding: .9rem; }
  dl { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
  table { width: max-content; min-width: 100%; }
  td { max-width: 18rem; overflow-wrap: anywhere; }
}
@media print { body { background: none; } section, article { break-inside: avoid; } }
"""
