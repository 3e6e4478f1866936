// The panel beside the 3D view: the image of a camera, its keypoints, its best matches.
const makeViewPanel = (data, box, select) => {
  const {names, sizes, facts} = data.cameras;
  const {starts, places, points} = data.keypoints;
  const MOST_LINES = 80;

  const element = (tag, text, parent, className) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (className) made.className = className;
    if (parent) parent.append(made);
    return made;
  };
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const photograph = (row) => new Promise((resolve) => {
    if (!(row in data.thumbnails)) return resolve(null);
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = data.thumbnails[row];
  });
  const keypointsOf = (row) => {
    const found = [];
    for (let i = starts[row]; row + 1 < starts.length && i < starts[row + 1]; i++) {
      found.push({x: places[2 * i] / 65535, y: places[2 * i + 1] / 65535, point: points[i]});
    }
    return found;
  };
  // map images that go with one, best first; those of a query come with their matches
  const matchesOf = (row) => (row in data.matches
    ? data.matches[row].map(({row: other, count, what, places: ends}) => ({other, count, ends, what}))
    : (data.neighbours[row] || []).map(([other, count]) => ({other, count, what: "shared points"})));
  const linesOf = (row, {other, ends}) => {
    if (ends) return Array.from({length: ends.length / 4}, (_, i) => [...ends.subarray(4 * i, 4 * i + 4)].map((end) => end / 65535));
    const there = new Map(keypointsOf(other).map((one) => [one.point, one]));
    const both = keypointsOf(row).filter((one) => there.has(one.point));
    const step = Math.max(1, Math.ceil(both.length / MOST_LINES));
    return both.filter((_, i) => i % step === 0).map(({x, y, point}) => [x, y, there.get(point).x, there.get(point).y]);
  };
  // draws an image into a box of a canvas, or grey where there is none
  const paint = (context, image, x, y, width, height) => {
    context.fillStyle = color("--line");
    context.fillRect(x, y, width, height);
    if (image) context.drawImage(image, x, y, width, height);
  };
  const canvasOf = (parent, width, height, label) => {
    const canvas = element("canvas", "", parent);
    canvas.width = width * 2;
    canvas.height = height * 2;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    const context = canvas.getContext("2d");
    context.scale(2, 2);
    return context;
  };

  const showImage = async (row, parent) => {
    const [w, h] = sizes[row];
    const scale = 400 / Math.max(w, h);
    const context = canvasOf(parent, w * scale, h * scale, `${names[row]} and its keypoints`);
    const dots = row in data.matches
      ? [...new Map(matchesOf(row).flatMap((match) => linesOf(row, match)).map(([x, y]) => [`${x} ${y}`, {x, y}])).values()]
      : keypointsOf(row);
    paint(context, await photograph(row), 0, 0, w * scale, h * scale);
    for (const {x, y} of dots) {
      context.beginPath();
      context.arc(x * w * scale, y * h * scale, 1.7, 0, 7);
      context.fillStyle = "#38e04f";
      context.fill();
      context.lineWidth = 0.5;
      context.strokeStyle = "#00000099";
      context.stroke();
    }
    const photo = row in data.thumbnails ? "" : "The photograph is not in this file. ";
    const which = row in data.matches ? "matched keypoints" : "keypoints that see map points";
    element("p", `${photo}${dots.length.toLocaleString("en")} ${which} are drawn.`, parent, "note");
  };

  const showPair = async (row, match, parent) => {
    parent.replaceChildren();
    const {other, count, what} = match;
    const height = 150, gap = 4;
    const widths = [row, other].map((one) => (height * sizes[one][0]) / sizes[one][1]);
    const label = `Matches of ${names[row]} and ${names[other]}`;
    const context = canvasOf(parent, widths[0] + gap + widths[1], height, label);
    const images = await Promise.all([photograph(row), photograph(other)]);
    paint(context, images[0], 0, 0, widths[0], height);
    paint(context, images[1], widths[0] + gap, 0, widths[1], height);
    const lines = linesOf(row, match);
    for (const [x, y, otherX, otherY] of lines) {
      context.beginPath();
      context.moveTo(x * widths[0], y * height);
      context.lineTo(widths[0] + gap + otherX * widths[1], otherY * height);
      context.strokeStyle = `hsl(${(y * 300).toFixed()} 90% 55% / 0.8)`;
      context.lineWidth = 0.8;
      context.stroke();
    }
    element("p", `${names[other]}: ${count.toLocaleString("en")} ${what}, ${lines.length} of them drawn.`, parent, "note");
  };

  const showMatches = (row, parent) => {
    const found = matchesOf(row);
    if (!found.length) return;
    element("h3", "Best matches", parent);
    const list = element("ol", "", parent, "view-matches");
    const pair = element("div", "", parent);
    const buttons = found.map((match) => {
      const item = element("li", "", list);
      const button = element("button", names[match.other], item);
      button.type = "button";
      button.title = names[match.other];
      element("span", ` ${match.count.toLocaleString("en")} ${match.what.split(" ")[0]} `, item);
      const go = element("button", "go there", item, "plain");
      go.type = "button";
      go.addEventListener("click", () => select(match.other));
      button.addEventListener("click", () => {
        buttons.forEach((one) => one.setAttribute("aria-pressed", one === button));
        showPair(row, match, pair);
      });
      return button;
    });
    buttons[0].click();
  };

  return (row) => {
    box.replaceChildren();
    element("h3", names[row], box);
    const list = element("dl", "", box, "view-facts");
    for (const [label, value] of facts[row]) {
      element("dt", label, list);
      element("dd", value, list);
    }
    showImage(row, element("div", "", box));
    showMatches(row, element("div", "", box));
  };
};
