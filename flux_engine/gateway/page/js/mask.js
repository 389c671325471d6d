// A mask painted over a picture: white is made anew. By mouse, pen and touch, or as a rectangle in pixels.
import { html, useLayoutEffect, useRef, useState } from "./ui.js";
import { t } from "./texts.js";

const LONGEST_SIDE = 2048; // the worker scales a mask to its picture
const UNDO_STEPS = 20;
const SHOWN = "rgba(228, 87, 46, 0.6)";

export function MaskPainter({ image, size, value, onChange }) {
  const canvas = useRef(null);
  const strokes = useRef([]); // [{kind, ...}], drawn anew on undo
  const current = useRef(null);
  const [tool, setTool] = useState("brush");
  const [brush, setBrush] = useState(() => Math.round(Math.max(size.width, size.height) / 10));
  const [rectangle, setRectangle] = useState({ left: 0, top: 0, width: size.width >> 1, height: size.height >> 1 });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(size.width, size.height));
  const [width, height] = [Math.round(size.width * scale), Math.round(size.height * scale)];

  const redraw = () => {
    const context = contextOf(canvas.current);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    for (const stroke of strokes.current) draw(context, stroke, size);
  };
  const commit = () => onChange(hasPaint(canvas.current) ? asMask(canvas.current) : undefined);
  const add = (stroke) => {
    strokes.current = [...strokes.current.slice(-UNDO_STEPS * 10), stroke];
    redraw();
    commit();
  };
  useLayoutEffect(() => {
    let isThere = true;
    if (value) {
      restore(canvas.current, value, (base) => {
        if (!isThere) return;
        const since = strokes.current;
        strokes.current = [{ kind: "base", base }, ...since];
        redraw();
        if (since.length > 0 && !current.current) commit();
      });
    }
    return () => { isThere = false; };
  }, []); // another picture has another painter

  const pointOf = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * size.width, ((event.clientY - box.top) / box.height) * size.height];
  };
  const down = (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    canvas.current.setPointerCapture(event.pointerId);
    current.current = { kind: tool, width: brush, points: [pointOf(event)] };
    strokes.current = [...strokes.current, current.current];
    redraw();
  };
  const move = (event) => {
    if (!current.current) return;
    const events = event.getCoalescedEvents?.() ?? [event];
    current.current.points.push(...(events.length > 0 ? events : [event]).map(pointOf));
    redraw();
  };
  const up = () => {
    if (!current.current) return;
    current.current = null;
    commit();
  };
  const undo = () => {
    strokes.current = strokes.current.slice(0, -1);
    redraw();
    commit();
  };
  const key = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      undo();
    }
  };
  const side = (name, label, most) => html`<label class="small">${label}
    <input type="number" min="0" max=${most} value=${rectangle[name]}
      onInput=${(event) => setRectangle({ ...rectangle, [name]: event.currentTarget.valueAsNumber || 0 })} /></label>`;

  return html`<div class="mask wide" onKeyDown=${key}>
    <div class="tools" role="toolbar" aria-label=${t("edit.mask")}>
      ${["brush", "eraser"].map((name) => html`<button key=${name} type="button" aria-pressed=${String(tool === name)}
        onClick=${() => setTool(name)}>${t(`edit.mask.${name}`)}</button>`)}
      <label class="small">${t("edit.mask.size")}
        <input type="range" min="2" max=${Math.max(size.width, size.height) >> 1} value=${brush}
          onInput=${(event) => setBrush(event.currentTarget.valueAsNumber)} /></label>
      <button type="button" onClick=${() => add({ kind: "invert" })}>${t("edit.mask.invert")}</button>
      <button type="button" onClick=${undo}>${t("edit.mask.undo")}</button>
      <button type="button" onClick=${() => { strokes.current = []; redraw(); commit(); }}>${t("edit.mask.clear")}</button>
    </div>
    <div class="paper" style=${{ aspectRatio: `${size.width} / ${size.height}` }}>
      <img src=${image} alt="" draggable=${false} />
      <canvas ref=${canvas} width=${width} height=${height} role="img" aria-label=${t("edit.mask")}
        onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up}></canvas>
    </div>
    <fieldset class="row">
      <legend>${t("edit.mask.rectangle")}</legend>
      ${side("left", t("edit.mask.left"), size.width)}
      ${side("top", t("edit.mask.top"), size.height)}
      ${side("width", t("form.width"), size.width)}
      ${side("height", t("form.height"), size.height)}
      <button type="button" onClick=${() => add({ kind: "rectangle", ...rectangle })}>${t("edit.mask.fill")}</button>
    </fieldset>
    ${!value && html`<small>${t("edit.mask.empty")}</small>`}
  </div>`;
}

function draw(context, stroke, size) {
  context.globalCompositeOperation = stroke.kind === "eraser" ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = SHOWN.replace("0.6", "1");
  if (stroke.kind === "rectangle") context.fillRect(stroke.left, stroke.top, stroke.width, stroke.height);
  else if (stroke.kind === "base") context.drawImage(stroke.base, 0, 0, size.width, size.height);
  else if (stroke.kind === "invert") {
    context.globalCompositeOperation = "xor";
    context.fillRect(0, 0, size.width, size.height);
  } else {
    const [first, ...rest] = stroke.points;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = stroke.width;
    context.beginPath();
    context.moveTo(...first);
    for (const point of rest.length > 0 ? rest : [first]) context.lineTo(...point);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

// Read back after every stroke, so kept in memory rather than on the GPU.
const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

const alphas = (canvas) => contextOf(canvas).getImageData(0, 0, canvas.width, canvas.height);

function hasPaint(canvas) {
  const { data } = alphas(canvas);
  for (let i = 3; i < data.length; i += 4) if (data[i] > 127) return true;
  return false;
}

// White where it is painted, black elsewhere, as a PNG's data URI.
function asMask(canvas) {
  const pixels = alphas(canvas);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data.fill(pixels.data[i + 3] > 127 ? 255 : 0, i, i + 3);
    pixels.data[i + 3] = 255;
  }
  return onCanvas(canvas.width, canvas.height, (context) => context.putImageData(pixels, 0, 0)).toDataURL("image/png");
}

// The mask of a draft that was begun before, back in colour on nothing.
function restore(canvas, mask, done) {
  const image = new Image();
  image.onload = () => {
    const base = onCanvas(canvas.width, canvas.height, (context) => {
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const alpha = pixels.data[i];
        pixels.data.set([228, 87, 46, alpha], i);
      }
      context.putImageData(pixels, 0, 0);
    });
    done(base);
  };
  image.src = mask;
}

function onCanvas(width, height, paint) {
  const made = document.createElement("canvas");
  made.width = width;
  made.height = height;
  paint(contextOf(made));
  return made;
}
