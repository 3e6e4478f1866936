// The map in 3D with three.js: points, frustums of cameras, true poses and error lines.
(() => {
  const root = document.querySelector(".view");
  if (!root) return;
  const TYPES = {f4: Float32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array};
  const COLORS = ["#d62728", "#1f77b4", "#ff7f0e", "#9467bd", "#17becf", "#e377c2", "#bcbd22", "#8c564b"];
  const TRUE_COLOR = "#2ca02c", SELECTED_COLOR = "#ffc400";
  const PICK_PIXELS = 16;

  // arrays come as base64
  const decoded = (value) => {
    if (value === null || typeof value !== "object") return value;
    if (value.bdata !== undefined) {
      const bytes = Uint8Array.from(atob(value.bdata), (letter) => letter.charCodeAt(0));
      return new TYPES[value.dtype](bytes.buffer);
    }
    for (const key of Object.keys(value)) value[key] = decoded(value[key]);
    return value;
  };
  const data = decoded(JSON.parse(root.querySelector("script").textContent));
  const box = root.querySelector(".view-scene");
  const chooser = root.querySelector("[data-camera]");
  const {names, groups} = data.cameras;
  const groupNames = [...new Set(groups)];
  const colorOf = (group) => COLORS[groupNames.indexOf(group) % COLORS.length];
  const hidden = new Set();

  // the page without the scene still shows images
  const panel = makeViewPanel(data, root.querySelector("[data-selected]"), (row) => select(row));
  for (const group of groupNames) {
    const options = document.createElement("optgroup");
    options.label = group;
    names.forEach((name, row) => groups[row] === group && options.append(new Option(name, row)));
    chooser.append(options);
  }
  for (const input of root.querySelectorAll("[data-show]")) {
    const swatch = input.parentElement.querySelector(".swatch");
    if (swatch) swatch.style.background = input.dataset.show === "truth" ? TRUE_COLOR : colorOf(input.dataset.show);
  }
  chooser.addEventListener("change", () => chooser.value !== "" && select(Number(chooser.value)));
  let highlight = () => {};
  const select = (row) => {
    chooser.value = row;
    panel(row);
    highlight(row);
  };

  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({antialias: true, preserveDrawingBuffer: true});
  } catch (error) {
    box.textContent = "This browser has no WebGL, so the map cannot be shown in 3D.";
    return;
  }
  box.append(renderer.domElement);
  renderer.setPixelRatio(window.devicePixelRatio);

  const {extent} = data.frame;
  const vector = (array, row = 0) => new THREE.Vector3().fromArray(array, 3 * row);
  const scene = new THREE.Scene();
  const world = new THREE.Group(); // turned so that up is y
  scene.add(world);
  const eye = new THREE.PerspectiveCamera(45, 1, extent / 1000, extent * 100);
  const controls = new THREE.OrbitControls(eye, renderer.domElement);
  controls.zoomSpeed = 1.5;
  controls.listenToKeyEvents(box); // arrows move

  // points, larger where there are few
  const pointSize = root.querySelector("[data-size=points]");
  pointSize.value = Math.min(5, Math.max(1.5, 350 / Math.sqrt(data.points.positions.length)));
  const disc = (() => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 32;
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, 32, 32);
    context.fillStyle = "#fff";
    context.arc(16, 16, 15, 0, 7);
    context.fill();
    return new THREE.CanvasTexture(canvas);
  })();
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(data.points.positions, 3));
  geometry.setAttribute("color", new THREE.BufferAttribute(data.points.colors, 3, true));
  const cloud = new THREE.Points(geometry, new THREE.PointsMaterial({
    size: pointSize.value * devicePixelRatio, sizeAttenuation: false, vertexColors: true, alphaMap: disc, alphaTest: 0.5,
  }));
  world.add(cloud);

  // cameras: a place in the scene each, and lines a group
  const posed = (poses) => new Map([...poses.rows].map((row, i) => [row, {
    center: vector(poses.centers, i),
    corners: [0, 1, 2, 3].map((k) => vector(poses.corners, 4 * i + k)),
  }]));
  const estimated = posed(data.cameras.poses), truth = posed(data.cameras.truth);
  const placeOf = (row) => estimated.get(row) || truth.get(row);
  let length = data.frame.frustum;
  const frustum = ({center, corners}, scale = 1) => {
    const ends = corners.map((corner) => corner.clone().multiplyScalar(length * scale).add(center));
    return ends.flatMap((end, k) => [center, end, end, ends[(k + 1) % 4]]);
  };
  const materials = [];
  const lines = (vertices, color, width) => {
    const shape = new THREE.LineSegmentsGeometry().setPositions(vertices.flatMap((v) => v.toArray()));
    const material = new THREE.LineMaterial({color, linewidth: width});
    materials.push(material);
    return new THREE.LineSegments2(shape, material);
  };
  const drawn = new THREE.Group(), chosen = new THREE.Group();
  world.add(drawn, chosen);
  const clear = (group) => {
    for (const line of group.children) {
      line.geometry.dispose();
      line.material.dispose();
      materials.splice(materials.indexOf(line.material), 1);
    }
    group.clear();
  };
  const drawCameras = () => {
    clear(drawn);
    const width = names.length > 300 ? 1 : 1.6;
    for (const group of groupNames) {
      if (hidden.has(group)) continue;
      const rows = groups.flatMap((one, row) => (one === group ? [row] : []));
      const of = (found) => rows.filter((row) => found.has(row));
      const add = (vertices, color) => vertices.length && drawn.add(lines(vertices, color, width));
      add(of(estimated).flatMap((row) => frustum(estimated.get(row))), colorOf(group));
      if (hidden.has("truth")) continue;
      add(of(truth).flatMap((row) => frustum(truth.get(row))), TRUE_COLOR);
      const both = of(truth).filter((row) => estimated.has(row));
      add(both.flatMap((row) => [estimated.get(row).center, truth.get(row).center]), SELECTED_COLOR);
    }
    draw();
  };
  let selected = null;
  highlight = (row) => {
    selected = row;
    clear(chosen);
    const place = placeOf(row);
    if (place) {
      chosen.add(lines(frustum(place, 1.05), SELECTED_COLOR, 4));
      const others = (data.matches[row] || []).map((match) => match.row)
        .concat((data.neighbours[row] || []).map(([other]) => other));
      const ends = others.flatMap((other) => [place.center, estimated.get(other).center]);
      if (ends.length) chosen.add(lines(ends, SELECTED_COLOR, 1.5));
    }
    draw();
  };

  // drawn when something changes, not all the time
  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const material of materials) material.resolution.set(box.clientWidth, box.clientHeight);
      renderer.setClearColor(getComputedStyle(document.documentElement).getPropertyValue("--scene").trim());
      renderer.render(scene, eye);
    });
  };
  controls.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => {
    renderer.setSize(box.clientWidth, box.clientHeight);
    const changed = (eye.aspect - box.clientWidth / box.clientHeight) / eye.aspect;
    eye.aspect = box.clientWidth / box.clientHeight;
    eye.updateProjectionMatrix();
    if (Math.abs(changed) > 0.2) turn(upward.value);
    draw();
  }).observe(box);

  const turn = (up) => {
    const [right, back, above] = data.frame.axes.map((row) => vector(row));
    if (up === "auto") {
      const frame = new THREE.Matrix4().makeBasis(right, above, back.negate());
      world.quaternion.setFromRotationMatrix(frame).invert();
    } else {
      const axis = new THREE.Vector3();
      axis[up.slice(-1)] = up.startsWith("-") ? -1 : 1;
      world.quaternion.setFromUnitVectors(axis, new THREE.Vector3(0, 1, 0));
    }
    world.updateMatrixWorld();
    const middle = vector(data.frame.center).applyQuaternion(world.quaternion);
    controls.target.copy(middle);
    eye.position.copy(middle).add(new THREE.Vector3(0.25, 0.5, 0.83));
    eye.lookAt(middle);
    eye.position.addScaledVector(eye.position.clone().sub(middle).normalize(), distanceToSee(middle) - 1);
    controls.update();
    draw();
  };
  // how far from the middle all but a few places are in view
  const distanceToSee = (middle) => {
    const slope = 0.88 * Math.tan((eye.fov / 360) * Math.PI);
    const inverse = eye.quaternion.clone().invert();
    const center = middle.clone().applyQuaternion(inverse);
    const turned = inverse.clone().multiply(world.quaternion);
    const distance = (place) => {
      const {x, y, z} = place.clone().applyQuaternion(turned).sub(center);
      return z + Math.max(Math.abs(x) / eye.aspect, Math.abs(y)) / slope;
    };
    const most = (places, share) => {
      const sorted = places.map(distance).sort((one, other) => one - other);
      return sorted[Math.ceil(share * sorted.length) - 1] || 0;
    };
    const count = data.points.positions.length / 3, some = [];
    for (let i = 0; i < count; i += Math.ceil(count / 5000)) some.push(vector(data.points.positions, i));
    const mapped = [...estimated].filter(([row]) => groups[row] === groupNames[0]);
    const centers = mapped.map(([, {center: place}]) => place);
    return Math.max(most(some, 0.97), most(centers, 0.96), extent / 20);
  };

  // the camera whose frustum is nearest to a place on the screen
  const onScreen = (place) => {
    const point = world.localToWorld(place.clone()).project(eye);
    return point.z > 1 ? null : [(point.x + 1) / 2 * box.clientWidth, (1 - point.y) / 2 * box.clientHeight];
  };
  const handles = (row) => {
    const {center, corners} = placeOf(row);
    const middle = corners.reduce((sum, corner) => sum.add(corner), new THREE.Vector3());
    return [center, center.clone().addScaledVector(middle, length / 8), center.clone().addScaledVector(middle, length / 4)];
  };
  const cameraAt = (x, y) => {
    let best = null, least = PICK_PIXELS;
    names.forEach((_, row) => {
      if (hidden.has(groups[row]) || !placeOf(row)) return;
      for (const place of handles(row).map(onScreen)) {
        const distance = place ? Math.hypot(place[0] - x, place[1] - y) : Infinity;
        if (distance < least) [best, least] = [row, distance];
      }
    });
    return best;
  };
  let pressed = null;
  renderer.domElement.addEventListener("pointerdown", (event) => { pressed = [event.offsetX, event.offsetY]; });
  renderer.domElement.addEventListener("pointerup", (event) => {
    if (!pressed || Math.hypot(event.offsetX - pressed[0], event.offsetY - pressed[1]) > 4) return;
    const row = cameraAt(event.offsetX, event.offsetY);
    if (row !== null) select(row);
  });
  renderer.domElement.addEventListener("pointermove", (event) => {
    if (event.buttons) return;
    const row = cameraAt(event.offsetX, event.offsetY);
    renderer.domElement.style.cursor = row === null ? "grab" : "pointer";
    renderer.domElement.title = row === null ? "" : names[row];
  });

  for (const input of root.querySelectorAll("[data-show]")) {
    input.addEventListener("change", () => {
      hidden[input.checked ? "delete" : "add"](input.dataset.show);
      cloud.visible = !hidden.has("points");
      drawCameras();
    });
  }
  pointSize.addEventListener("input", () => {
    cloud.material.size = pointSize.value * devicePixelRatio;
    draw();
  });
  root.querySelector("[data-size=cameras]").addEventListener("input", (event) => {
    length = data.frame.frustum * 2 ** event.target.value;
    drawCameras();
    if (selected !== null) highlight(selected);
  });
  const upward = root.querySelector("[data-up]");
  upward.addEventListener("change", () => turn(upward.value));
  root.querySelector("[data-reset]").addEventListener("click", () => turn(upward.value));
  eye.aspect = box.clientWidth / box.clientHeight;
  turn("auto");
  drawCameras();
  // where a camera is on the screen, for tests and the console
  root.cameraOnScreen = (name) => onScreen(placeOf(names.indexOf(name)).center);
  root.eye = eye;
})();
