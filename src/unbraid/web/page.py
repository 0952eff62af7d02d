"""The page, laid out with Gradio: components, and what happens when they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from unbraid.checkpoints import DEFAULT_MODEL
from unbraid.checkpoints.fetching import download_model
from unbraid.errors import ConfigError, MissingExtra, UnbraidError
from unbraid.web import separating, showing, teaching
from unbraid.web.choices import ModelChoice, model_choices, prompt_choices
from unbraid.web.options import WebOptions
from unbraid.web.visitors import Visitor, Visitors
from unbraid.web.working import HowFar, Outcome, Pace, follow

try:
    import gradio as gr
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"the page needs the package {error.name}; install it with: pip install 'unbraid[web]'"
    ) from error

T = TypeVar("T")

log = logging.getLogger(__name__)

_ASSETS = Path(__file__).with_name("assets")
_FORMATS = {
    "WAV, as deep as the recording": "wav",
    "FLAC": "flac",
    "mp3, 320 kbit/s": "mp3",
    "AAC in m4a": "m4a",
    "Opus": "opus",
    "Ogg Vorbis": "ogg",
}
#: All long work shares one line.
_LINE = "work"
_UNFORESEEN = "Something went wrong that nobody foresaw; the log of the program says what."


def build_page(visitors: Visitors, options: WebOptions) -> gr.Blocks:
    """The page with everything that happens on it.

    Args:
        visitors: Who is there; ``gr.Blocks.unload`` lets them go.
        options: How much a visitor may ask for.
    """
    with gr.Blocks(title="unbraid", analytics_enabled=False) as page:
        gr.HTML(showing.header_html(options), padding=False)
        with gr.Row(equal_height=False, elem_classes="ub-columns"):
            with gr.Column(elem_classes="ub-column"):
                with gr.Column(elem_classes="ub-card"):
                    recording = _Recording()
                with gr.Column(elem_classes="ub-card"):
                    choice = _Choice(options)
            with gr.Column(elem_classes="ub-card"):
                asking = _Asking()
        with gr.Column(elem_classes="ub-card"):
            results = _Results()
        with gr.Accordion("Teach it a sound", open=False, elem_classes="ub-card ub-teach"):
            lessons = _Lessons(options)
        gr.HTML(showing.footer_html(), padding=False)

        recording.connect(visitors, options)
        choice.connect(page, visitors, options, asking)
        asking.connect(visitors)
        results.connect(visitors, options, asking, choice)
        lessons.connect(visitors, options, asking, choice)

        def leave(request: gr.Request) -> None:
            visitors.leave(str(request.session_hash))

        page.unload(leave)
    return page


class _Recording:
    """What is to be separated: a file, or something that is recorded here."""

    def __init__(self) -> None:
        gr.HTML(showing.heading_html("1. Recording"))
        with gr.Tabs():
            with gr.Tab("File"):
                self.file = gr.File(label="Audio or video", height=150, elem_id="ub-file")
            with gr.Tab("Microphone"):
                self.microphone = gr.Audio(
                    label="Record sound", sources=["microphone"], type="filepath"
                )
            with gr.Tab("Camera"):
                self.camera = gr.Video(
                    label="Record a video", sources=["webcam"], include_audio=True, height=240
                )
        self.told = gr.HTML(elem_id="ub-recording")

    def connect(self, visitors: Visitors, options: WebOptions) -> None:
        """Take what is brought or recorded, and say what it is."""

        def take(uploaded: str | None, request: gr.Request) -> tuple[Any, Any]:
            if uploaded is None:
                return gr.skip(), gr.skip()

            def told(visitor: Visitor) -> str:
                upload = separating.take_recording(visitor, uploaded, options)
                return showing.upload_html(upload)

            # The component lets go of the file: it lies with the visitor now.
            return None, _told(visitors, request, told)

        for source in (self.file, self.microphone, self.camera):
            source.change(take, source, [source, self.told], show_progress="hidden", **_PRIVATE)


class _Choice:
    """The model, its licence, and how to get it here."""

    def __init__(self, options: WebOptions) -> None:
        gr.HTML(showing.heading_html("2. Model"))
        models = _models()
        self.model = gr.HTML(
            showing.models_value(models.values(), DEFAULT_MODEL),
            html_template='<div class="ub-models"></div>',
            js_on_load=_asset("models.js"),
            apply_default_css=False,
            elem_id="ub-model",
        )
        self.about = gr.HTML(showing.model_html(models[DEFAULT_MODEL], options))
        with gr.Column(visible=False) as self.fetching:
            self.consent = gr.Checkbox(label="I agree to its licence", value=False)
            with gr.Row():
                self.fetch = gr.Button("Download this model", elem_id="ub-fetch")
                self.stop = gr.Button("Cancel", visible=False)
        self.progress = gr.HTML()

    def connect(
        self, page: gr.Blocks, visitors: Visitors, options: WebOptions, asking: _Asking
    ) -> None:
        """Show what the chosen model is and knows, and have it downloaded."""

        def show(chosen: Any, request: gr.Request) -> tuple[Any, ...]:
            model = _model(chosen)
            is_offered = not model.is_here and model.can_be_fetched and options.may_download
            return (
                showing.model_html(model, options),
                _prompts_of(model, visitors, request),
                gr.update(visible=is_offered),
                gr.update(visible=model.needs_consent, value=False),
                "",
            )

        shown = [self.about, asking.picker, self.fetching, self.consent, self.progress]
        page.load(show, self.model, shown, show_progress="hidden", **_PRIVATE)
        self.model.change(show, self.model, shown, show_progress="hidden", **_PRIVATE)
        self.stop.click(_stopper(visitors), queue=False, show_progress="hidden", **_PRIVATE)
        if not options.may_download:
            return

        def fetch(chosen: Any, has_agreed: bool, request: gr.Request) -> Iterator[dict[Any, Any]]:
            model = _model(chosen)
            begun = {self.stop: gr.update(visible=True), self.fetch: gr.update(interactive=False)}
            ended = {self.stop: gr.update(visible=False), self.fetch: gr.update(interactive=True)}
            pace = Pace("Downloading")

            def work(visitor: Visitor, tell: Callable[[HowFar], None]) -> str:
                if model.needs_consent and not has_agreed:
                    raise ConfigError("tick that you agree to its licence, then download it.")
                with visitor.working():
                    download_model(
                        model.name,
                        accept_licence=has_agreed,
                        progress=lambda step: tell(pace.of_step(step)),
                        cancel=visitor.cancel,
                    )
                return model.name

            def done(name: str, visitor: Visitor) -> dict[Any, Any]:
                value = showing.models_value(_models().values(), name)
                return {self.model: value, **dict(zip(shown, show(value, request), strict=True))}

            yield from _steps(visitors, request, self.progress, begun, ended, work, done)

        self.fetch.click(
            fetch,
            [self.model, self.consent],
            [self.stop, self.fetch, self.model, *shown],
            **_long(options),
        )


class _Asking:
    """What to bring out, and the button that does it."""

    def __init__(self) -> None:
        gr.HTML(showing.heading_html("3. What to bring out"))
        self.picker = gr.HTML(
            showing.picker_value(()),
            html_template='<div class="ub-picker"></div>',
            js_on_load=_asset("prompts.js"),
            apply_default_css=False,
            elem_id="ub-picker",
        )
        with gr.Accordion("More", open=False):
            self.container = gr.Radio(list(_FORMATS.items()), value="wav", label="Stems as")
            self.residual = gr.Checkbox(label="Also keep what is left over (residual)")
            self.gate = gr.Checkbox(label="Silence a stem where its sound is absent (gate)")
        with gr.Row():
            self.go = gr.Button("Separate", variant="primary", elem_id="ub-go")
            self.stop = gr.Button("Cancel", visible=False, elem_id="ub-stop")
        self.progress = gr.HTML(elem_id="ub-progress")

    def connect(self, visitors: Visitors) -> None:
        """Stop what is being done."""
        self.stop.click(_stopper(visitors), queue=False, show_progress="hidden", **_PRIVATE)


class _Results:
    """The stems: to look at, to listen to in any mix, to keep."""

    def __init__(self) -> None:
        gr.HTML(showing.heading_html("4. Listen"))
        self.summary = gr.HTML(
            '<p class="ub-note">The stems will be here, each with its picture.</p>',
            elem_id="ub-summary",
        )
        self.mixer = gr.HTML(
            None,
            html_template='<div class="ub-mixer"></div>',
            js_on_load=_asset("mixer.js"),
            apply_default_css=False,
            elem_id="ub-mixer",
        )

    def connect(
        self, visitors: Visitors, options: WebOptions, asking: _Asking, choice: _Choice
    ) -> None:
        """Separate."""

        def separate(
            picked: Any, chosen: Any, container: Any, has_residual: bool, is_gated: bool,
            request: gr.Request,
        ) -> Iterator[dict[Any, Any]]:  # fmt: skip
            model = showing.chosen_model(chosen)
            wishes = separating.Wishes(
                model, showing.picked_counts(picked), container, has_residual, is_gated
            )
            begun = {
                asking.go: gr.update(interactive=False),
                asking.stop: gr.update(visible=True),
                self.summary: "",
                self.mixer: None,
            }
            ended = {
                asking.go: gr.update(interactive=True),
                asking.stop: gr.update(visible=False),
            }

            def work(visitor: Visitor, tell: Callable[[HowFar], None]) -> separating.Separated:
                return separating.separate(visitor, wishes, options, tell)

            def done(found: separating.Separated, visitor: Visitor) -> dict[Any, Any]:
                return {
                    self.summary: showing.separated_html(found, visitor),
                    self.mixer: showing.mixer_value(found, visitor),
                }

            yield from _steps(visitors, request, asking.progress, begun, ended, work, done)

        _wait(asking.go, asking.progress).then(
            separate,
            [asking.picker, choice.model, asking.container, asking.residual, asking.gate],
            [asking.progress, asking.go, asking.stop, self.summary, self.mixer],
            **_long(options),
        )


class _Lessons:
    """Teach a prompt from clips, ask by example, or bring a prompt file."""

    def __init__(self, options: WebOptions) -> None:
        gr.HTML(
            '<p class="ub-note">Bring about five clips of a second or more in which the sound is '
            f"heard alone. Teaching takes up to {options.teach_minutes:g} minutes. The prompt is "
            "yours until you leave; download it to keep it.</p>"
        )
        with gr.Row(equal_height=False):
            with gr.Column():
                self.clips = gr.File(
                    label="Clips of the sound", file_count="multiple", height=150,
                    elem_id="ub-clips",
                )  # fmt: skip
                self.taken = gr.HTML()
            with gr.Column():
                self.name = gr.Textbox(
                    label="What to call it", placeholder="door-bell", max_lines=1, elem_id="ub-name"
                )
                with gr.Row():
                    self.go = gr.Button("Teach", variant="primary", elem_id="ub-teach")
                    self.show = gr.Button("Ask by example", elem_id="ub-example")
                    self.stop = gr.Button("Cancel", visible=False)
        self.progress = gr.HTML(elem_id="ub-taught")
        with gr.Accordion("I have a prompt file", open=False):
            self.file = gr.File(label="name.prompt.safetensors", height=120, elem_id="ub-prompt")
            self.told = gr.HTML()
        self.paths = gr.State([])

    def connect(
        self, visitors: Visitors, options: WebOptions, asking: _Asking, choice: _Choice
    ) -> None:
        """Take clips and prompts, teach, and tick what is new."""

        def take_clips(uploaded: list[str] | None, request: gr.Request) -> tuple[Any, Any, Any]:
            if not uploaded:
                return gr.skip(), gr.skip(), gr.skip()
            taken: list[Path] = []

            def told(visitor: Visitor) -> str:
                taken.extend(teaching.take_clips(visitor, uploaded))
                names = ", ".join(path.name for path in taken)
                count = f"{len(taken)} clip{'' if len(taken) == 1 else 's'}"
                return showing.message_html(f"{count}: {names}")

            return None, _told(visitors, request, told), taken

        self.clips.change(
            take_clips,
            self.clips,
            [self.clips, self.taken, self.paths],
            show_progress="hidden",
            **_PRIVATE,
        )

        def teach(
            chosen: Any, name: str, clips: list[Path], request: gr.Request
        ) -> Iterator[dict[Any, Any]]:
            model = showing.chosen_model(chosen)
            begun = {
                self.go: gr.update(interactive=False),
                self.stop: gr.update(visible=True),
            }
            ended = {self.go: gr.update(interactive=True), self.stop: gr.update(visible=False)}

            def work(visitor: Visitor, tell: Callable[[HowFar], None]) -> teaching.Taught:
                return teaching.teach_prompt(visitor, model, name.strip(), clips, options, tell)

            def done(taught: teaching.Taught, visitor: Visitor) -> dict[Any, Any]:
                return {
                    self.progress: showing.taught_html(taught, visitor),
                    asking.picker: _picker(model, visitor),
                }

            yield from _steps(visitors, request, self.progress, begun, ended, work, done)

        _wait(self.go, self.progress).then(
            teach,
            [choice.model, self.name, self.paths],
            [self.progress, self.go, self.stop, asking.picker],
            **_long(options),
        )

        def show(chosen: Any, clips: list[Path], request: gr.Request) -> tuple[Any, Any]:
            def told(visitor: Visitor) -> str:
                names = teaching.show_examples(visitor, showing.chosen_model(chosen), clips)
                return showing.message_html(f"Ticked above: {', '.join(names)}")

            text = _told(visitors, request, told)
            return text, _prompts_of(_model(chosen), visitors, request)

        self.show.click(
            show,
            [choice.model, self.paths],
            [self.progress, asking.picker],
            show_progress="hidden",
            **_PRIVATE,
        )

        def take_prompt(
            uploaded: str | None, chosen: Any, request: gr.Request
        ) -> tuple[Any, Any, Any]:
            if uploaded is None:
                return gr.skip(), gr.skip(), gr.skip()

            def told(visitor: Visitor) -> str:
                name = teaching.take_prompt(visitor, showing.chosen_model(chosen), uploaded)
                return showing.message_html(f"{name} is ticked above.")

            text = _told(visitors, request, told)
            return None, text, _prompts_of(_model(chosen), visitors, request)

        self.file.change(
            take_prompt,
            [self.file, choice.model],
            [self.file, self.told, asking.picker],
            show_progress="hidden",
            **_PRIVATE,
        )

        self.stop.click(_stopper(visitors), queue=False, show_progress="hidden", **_PRIVATE)


#: For events: no programming interface beside the page, for it would get around it.
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def _long(options: WebOptions) -> dict[str, Any]:
    """For events that take long: they wait for each other."""
    return {
        **_PRIVATE,
        "show_progress": "hidden",
        "concurrency_limit": options.jobs,
        "concurrency_id": _LINE,
    }


def _stopper(visitors: Visitors) -> Callable[[gr.Request], None]:
    """Stops what is being done for whoever asks."""

    def stop(request: gr.Request) -> None:
        visitors.of(str(request.session_hash)).cancel.set()

    return stop


def _wait(button: gr.Button, progress: gr.HTML) -> Any:
    """Say at once that something will be done; it may have to wait in the line."""
    waiting = showing.progress_html(HowFar("Waiting for its turn"))
    return button.click(
        lambda: waiting, outputs=progress, queue=False, show_progress="hidden", **_PRIVATE
    )


def _steps(
    visitors: Visitors,
    request: gr.Request,
    progress: gr.HTML,
    begun: dict[Any, Any],
    ended: dict[Any, Any],
    work: Callable[[Visitor, Callable[[HowFar], None]], T],
    done: Callable[[T, Visitor], dict[Any, Any]],
) -> Iterator[dict[Any, Any]]:
    """Do long work and show how far it has come, then what came of it or why nothing did.

    Args:
        visitors: Who is there.
        request: Who asks.
        progress: Where progress and errors are shown.
        begun: What changes when the work begins.
        ended: What changes when it ends, whatever happens.
        work: What to do.
        done: What changes when it went well.
    """
    try:
        visitor = visitors.of(str(request.session_hash))
        yield {progress: showing.progress_html(HowFar("Beginning")), **begun}
        for report in follow(lambda tell: work(visitor, tell)):
            if not isinstance(report, Outcome):
                yield {progress: showing.progress_html(report)}
            elif report.is_cancelled:
                yield {progress: showing.message_html("Cancelled; nothing was kept."), **ended}
            elif report.error is not None:
                text = separating.readable(report.error, visitor)
                yield {progress: showing.message_html(text, is_error=True), **ended}
            else:
                assert report.value is not None
                yield {progress: "", **ended, **done(report.value, visitor)}
    except UnbraidError as error:
        yield {progress: showing.message_html(str(error), is_error=True), **ended}
    except Exception:
        log.exception("the page could not do what it was asked for")
        yield {progress: showing.message_html(_UNFORESEEN, is_error=True), **ended}


def _told(visitors: Visitors, request: gr.Request, work: Callable[[Visitor], str]) -> str:
    """Do something short and say what came of it, or why nothing did."""
    visitor = None
    try:
        visitor = visitors.of(str(request.session_hash))
        return work(visitor)
    except UnbraidError as error:
        text = str(error) if visitor is None else separating.readable(error, visitor)
        return showing.message_html(text, is_error=True)


def _prompts_of(model: ModelChoice, visitors: Visitors, request: gr.Request) -> dict[str, Any]:
    """The list of a model's prompts; why there is none, where it is not here or damaged."""
    if not model.is_here:
        return showing.picker_value((), "This model is not here yet.")
    try:
        return _picker(model.name, visitors.of(str(request.session_hash)))
    except UnbraidError as error:
        return showing.picker_value((), str(error))


def _picker(model: str, visitor: Visitor) -> dict[str, Any]:
    return showing.picker_value(prompt_choices(model, visitor))


def _models() -> dict[str, ModelChoice]:
    """Name → model, the default first."""
    return {model.name: model for model in model_choices()}


def _model(value: Any) -> ModelChoice:
    """The model that the list of models says was chosen; the default for what is none."""
    models = _models()
    return models.get(showing.chosen_model(value), models[DEFAULT_MODEL])


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
