"use strict";
// Unpacks plotly and draws the charts, folded ones last: again when the reader picks a view, unfolds a part, turns the
// lights on or off, or prints, for which every part is unfolded.
(async () => {
  const text = (id) => document.getElementById(id).textContent;
  const { skins, charts } = JSON.parse(text("drawn"));
  const place = (chart) => document.getElementById("chart-" + chart.name);
  try {
    const packed = Uint8Array.from(atob(text("plotly")), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  } catch (error) {
    for (const chart of charts) place(chart).textContent = "This browser cannot draw the chart (" + error + ").";
    return;
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const draw = (chart) => {
    const skin = skins[dark.matches && !printing ? "dark" : "light"];
    const coloured = (value) => JSON.parse(JSON.stringify(value), (_, v) => skin[v] ?? v);
    const picked = document.querySelector(`input[name="view-${chart.name}"]:checked`);
    const narrow = place(chart).clientWidth < 560;
    const axis = { gridcolor: "@rule", linecolor: "@grey", zerolinecolor: "@rule", automargin: true };
    const own = chart.layout;
    const layout = coloured({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "kept", autosize: true,
      height: own.height ?? 380, margin: { l: 60, r: narrow ? 8 : 24, t: 12, b: 48 },
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 12 : 13, color: "@ink" },
      legend: { orientation: "h", x: 0, y: -0.24, yanchor: "top" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "@grey", activecolor: "@ink" },
      hoverlabel: { bgcolor: "@paper", bordercolor: "@grey", font: { color: "@ink" } },
      ...own, xaxis: { ...axis, showgrid: false, zeroline: false, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis },
    });
    const bar = { responsive: true, displaylogo: false, displayModeBar: narrow ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
    return Plotly.react(place(chart), coloured(chart.views[picked ? +picked.value : 0]), layout, bar);
  };
  const folded = (chart) => place(chart).closest("details:not([open])") !== null;
  const all = () => Promise.all(charts.map(draw));
  await Promise.all(charts.filter((chart) => !folded(chart)).map(draw));
  for (const chart of charts.filter(folded)) {
    await new Promise((idle) => setTimeout(idle)); // the page stays alive meanwhile
    await draw(chart);
  }
  document.documentElement.dataset.drawn = String(charts.length);
  const parts = [...document.querySelectorAll("details.part")];
  for (const part of parts)
    part.addEventListener("toggle", () => { if (part.open) charts.filter((one) => part.contains(place(one))).map(draw); });
  for (const chart of charts)
    for (const input of document.querySelectorAll(`input[name="view-${chart.name}"]`))
      input.addEventListener("change", () => draw(chart));
  dark.addEventListener("change", all);
  let closed = [];
  addEventListener("beforeprint", () => {
    printing = true;
    closed = parts.filter((part) => !part.open);
    for (const part of closed) part.open = true;
    all();
  });
  addEventListener("afterprint", () => {
    printing = false;
    for (const part of closed) part.open = false;
    all();
  });
})();
