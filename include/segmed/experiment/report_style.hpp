// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace segmed {

/// The style sheet of a report: one column of text, light and dark, on a phone and on paper.
inline const char* report_style() {
  return R"(
:root {
  color-scheme: light dark;
  --page: #fbfaf7; --card: #ffffff; --ink: #1d1d1b; --muted: #5f5e5a; --rule: #e3e1da;
  --good: #0b7a4b; --bad: #b42318; --accent: #2a78d6;
  --series-0: #85837c; --series-1: #2a78d6; --series-2: #c2410c; --series-3: #0f8a5f;
  --series-4: #8b5cf6; --series-5: #b7791f; --series-6: #d6336c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --card: #1f1f1d; --ink: #f1efe8; --muted: #a8a69d; --rule: #35342f;
    --good: #4ccf94; --bad: #ff8a80; --accent: #6bb0ff;
    --series-0: #9d9b93; --series-1: #6bb0ff; --series-2: #ff9d66; --series-3: #4ccf94;
    --series-4: #b79bff; --series-5: #e5b64c; --series-6: #ff86ad;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1, h2, h3 { line-height: 1.2; text-wrap: balance; }
h1 { font-size: 1rem; font-weight: 600; color: var(--muted); margin: 0 0 .75rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .35rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .4rem 0 .9rem; max-width: 46rem; }
.answer { font-size: clamp(1.35rem, 1rem + 1.9vw, 2.05rem); line-height: 1.28; font-weight: 600;
          letter-spacing: -.015em; margin: 0 0 1.1rem; max-width: none; text-wrap: pretty; }
.answer .up, .up { color: var(--good); }
.answer .down, .down { color: var(--bad); }
.quiet, figcaption, .note { color: var(--muted); }
.note { font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
         margin: 1.5rem 0 0; }
.tile, figure, .wide { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tile { padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.25; font-weight: 600;
          font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.tile > span { color: var(--muted); font-size: .88rem; }
.wide { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .55rem; text-align: right; border-bottom: 1px solid var(--rule);
         white-space: nowrap; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 0; }
thead th { white-space: normal; font-weight: 600; color: var(--muted); font-size: .84rem; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td.text, th.text { text-align: left; }
tbody th { font-weight: 500; }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 3px;
          margin-right: .5em; box-shadow: inset 0 0 0 1px rgb(0 0 0 / .25); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr));
          gap: 1rem; align-items: start; margin: .9rem 0 0; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
.charts:has(figure:only-child) { grid-template-columns: minmax(0, 34rem); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr));
        gap: 0 1rem; align-items: start; }
.pair figure { margin-top: .9rem; }
sub { line-height: 0; }
figure { margin: 0; padding: 1rem; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; margin-top: .6rem; }
.case { margin: 1rem 0; padding: 1rem; }
.case h3 span { font-weight: 400; color: var(--muted); }
.panels { display: grid; grid-template-columns: repeat(var(--panels, 2), 1fr); gap: .6rem; }
.panels div { text-align: center; font-size: .85rem; color: var(--muted); min-width: 0; }
.panels img { width: 100%; height: auto; display: block; border-radius: 6px; background: #000;
              margin-bottom: .3rem; }
.legend { margin-top: .5rem; font-size: .88rem; }
.legend span { display: inline-block; margin-right: 1.1em; }
ul { max-width: 46rem; padding-left: 1.2rem; }
li { margin: .35rem 0; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
      padding: .8rem 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.5;
      white-space: pre-wrap; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
.manifest td { white-space: normal; overflow-wrap: anywhere; text-align: left;
               font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
               font-size: .82rem; }
.manifest th { width: 30%; white-space: normal; vertical-align: top; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--rule);
         color: var(--muted); font-size: .88rem; }
@media (max-width: 34rem) {
  main { padding: 1.5rem 1rem 3rem; }
  h2 { margin-top: 2.2rem; }
  th, td { padding: .45rem .6rem; }
  figure, .case { padding: .75rem; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --muted: #444;
          --rule: #ccc; --good: #0b7a4b; --bad: #b42318; }
  main { max-width: none; padding: 0; }
  body { font-size: 10pt; }
  figure, .tile, .case, tr, pre { break-inside: avoid; }
  h2 { break-after: avoid; margin-top: 1.6rem; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
}
)";
}

}  // namespace segmed
