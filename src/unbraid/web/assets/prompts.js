// The list of prompts: a tick and a count for each. The body of a function that Gradio calls
// with (element, trigger, props, server, upload, watch).

const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value === "boolean") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

let drawn = null;

// What the page knows is replaced as a whole, so that Gradio sees the change.
const keep = (name, count) => {
  drawn = {
    ...props.value,
    prompts: props.value.prompts.map((prompt) => (prompt.name === name ? { ...prompt, count } : prompt)),
  };
  props.value = drawn;
};

const row = (prompt, number) => {
  const id = `ub-prompt-${number}`;
  const tick = make("input", { type: "checkbox", id, "aria-describedby": `${id}-about` });
  tick.checked = prompt.count > 0;
  const count = make("input", {
    type: "number", min: 1, max: prompt.most, step: 1, inputmode: "numeric",
    "aria-label": `How many ${prompt.name}`,
  });
  count.value = Math.max(1, prompt.count);
  const step = (by, text, hint) => {
    const button = make("button", { type: "button", "aria-label": `${hint} ${prompt.name}` }, text);
    button.addEventListener("click", () => set(Number(count.value) + by));
    return button;
  };
  const [fewer, more] = [step(-1, "\u2212", "One less"), step(1, "+", "One more")];
  const counter = make("span", { class: "ub-count" }, fewer, count, more);
  const show = () => {
    item.classList.toggle("ub-ticked", tick.checked);
    const value = Number(count.value);
    fewer.disabled = !tick.checked || value <= 1;
    more.disabled = !tick.checked || value >= prompt.most;
    count.disabled = !tick.checked;
  };
  const set = (value) => {
    count.value = Math.min(prompt.most, Math.max(1, Math.round(value) || 1));
    show();
    keep(prompt.name, tick.checked ? Number(count.value) : 0);
  };
  tick.addEventListener("change", () => set(Number(count.value)));
  count.addEventListener("change", () => set(Number(count.value)));
  const item = make(
    "li", {}, tick,
    make("label", { for: id }, make("strong", {}, prompt.name), make("span", { id: `${id}-about` }, prompt.about)),
    ...(prompt.most > 1 ? [counter] : []),
  );
  show();
  return item;
};

const redraw = () => {
  if (props.value === drawn) return;
  drawn = props.value;
  const { prompts, note } = props.value;
  const list = make("ul", { class: "ub-prompts", "aria-label": "Prompts" }, ...prompts.map(row));
  const place = element.querySelector(".ub-picker");
  place.replaceChildren(...(prompts.length ? [list] : []), ...(note ? [make("p", { class: "ub-note" }, note)] : []));
};
watch("value", redraw);
redraw();
