// The list of models, as the browser's own: Gradio's stays open when Tab leaves it. The body of a
// function that Gradio calls with (element, trigger, props, server, upload, watch).

const select = document.createElement("select");
select.setAttribute("aria-label", "Model and licence");
element.querySelector(".ub-models").append(select);
const redraw = () => {
  const { models, chosen } = props.value;
  select.replaceChildren(...models.map(({ name, label }) => new Option(label, name)));
  select.value = chosen;
};
select.addEventListener("change", () => {
  props.value = { ...props.value, chosen: select.value };
  trigger("change");
});
watch("value", redraw);
redraw();
