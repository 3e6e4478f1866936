// Draws the charts of the page with plotly, in the page's colours.
(() => {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = {gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line"), automargin: true, exponentformat: "power"};
  for (const box of document.querySelectorAll(".chart")) {
    const {data, layout} = JSON.parse(box.querySelector("script").textContent);
    const whole = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: {l: 60, r: 20, t: 30, b: 50},
      font: {color: color("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13},
      hoverlabel: {bgcolor: color("--panel"), font: {color: color("--ink")}, namelength: -1, align: "left"},
      ...layout,
    };
    for (const key of ["xaxis", "yaxis"]) whole[key] = {...axis, ...whole[key]};
    for (const menu of whole.updatemenus || []) {
      Object.assign(menu, {bgcolor: color("--panel"), bordercolor: color("--line"), font: {color: color("--accent")}});
    }
    Plotly.newPlot(box, data, whole, {responsive: true, displayModeBar: false});
  }
})();
