// The mixer: plays the mixture and all stems in step, from wav files of any length.
//
// Stretches of every file are fetched, decoded here and scheduled on one clock, so that all
// tracks stay together to the sample and memory does not grow with the length. The body of
// a function that Gradio calls with (element, trigger, props, server, upload, watch).

const STRETCH_S = 4;
const AHEAD_S = 6;
const MIXTURE = "mixture";

const clock = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
};
const spoken = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  return (minutes ? `${minutes} minutes ` : "") + `${whole % 60} seconds`;
};
const size = (bytes) =>
  bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value === "boolean") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

// A wav file that lies somewhere else: its header, and stretches of it.
class Sound {
  constructor(url) {
    this.url = url;
  }

  async bytes(from, to) {
    const answer = await fetch(this.url, { headers: { Range: `bytes=${from}-${to - 1}` } });
    if (!answer.ok) throw new Error("The sound is not there any more. Separate again.");
    return answer.arrayBuffer();
  }

  async open() {
    const head = new DataView(await this.bytes(0, 65536));
    const tag = (at) => String.fromCharCode(...[0, 1, 2, 3].map((n) => head.getUint8(at + n)));
    for (let at = 12; at + 8 <= head.byteLength; ) {
      const length = head.getUint32(at + 4, true);
      if (tag(at) === "fmt ") {
        const kind = head.getUint16(at + 8, true);
        this.channels = head.getUint16(at + 10, true);
        this.rate = head.getUint32(at + 12, true);
        this.frameBytes = head.getUint16(at + 20, true);
        this.bits = head.getUint16(at + 22, true);
        this.isFloat = (kind === 0xfffe ? head.getUint16(at + 32, true) : kind) === 3;
      } else if (tag(at) === "data") {
        this.start = at + 8;
        return this;
      }
      at += 8 + length + (length % 2);
    }
    throw new Error("This sound cannot be played here. Download it instead.");
  }

  // Frames from `first` on, as many as there are up to `count`; null behind the end.
  async stretch(context, first, count) {
    const from = this.start + first * this.frameBytes;
    const answer = await fetch(this.url, {
      headers: { Range: `bytes=${from}-${from + count * this.frameBytes - 1}` },
    });
    if (answer.status === 416) return null;
    if (!answer.ok) throw new Error("The sound is not there any more. Separate again.");
    const data = new DataView(await answer.arrayBuffer());
    const frames = Math.floor(data.byteLength / this.frameBytes);
    if (frames === 0) return null;
    const buffer = context.createBuffer(this.channels, frames, this.rate);
    const width = this.bits / 8;
    const sample = this.isFloat
      ? (at) => data.getFloat32(at, true)
      : width === 2
        ? (at) => data.getInt16(at, true) / 32768
        : (at) => (data.getUint16(at, true) + data.getInt8(at + 2) * 65536) / 8388608;
    for (let channel = 0; channel < this.channels; channel += 1) {
      const samples = buffer.getChannelData(channel);
      for (let frame = 0; frame < frames; frame += 1)
        samples[frame] = sample(frame * this.frameBytes + channel * width);
    }
    return buffer;
  }
}

class Mixer {
  constructor(element, shown) {
    this.shown = shown;
    this.duration = shown.duration_s;
    this.position = 0; // where playing begins
    this.isPlaying = false;
    this.run = 0; // counts starts and stops; what belongs to a former one gives up
    this.nodes = [];
    this.tracks = shown.tracks.map((track) => ({
      ...track,
      sound: new Sound(new URL(track.sound, document.baseURI)),
      isMuted: false,
      isSolo: false,
      volume: 1,
    }));
    // Stems are what one came for; the mixture would be heard on top of them.
    this.mixture = this.tracks.find((track) => track.name === MIXTURE);
    if (this.mixture) this.mixture.isMuted = true;
    this.draw(element);
    this.tick = this.tick.bind(this);
  }

  // ---------------------------------------------------------------- what it looks like

  draw(element) {
    this.play_button = make("button", { type: "button", class: "ub-play" });
    this.play_button.addEventListener("click", () => this.toggle());
    this.seek_bar = make("input", {
      type: "range", min: 0, max: this.duration, step: 0.1, value: 0, class: "ub-seek",
      "aria-label": "Position",
    });
    this.seek_bar.addEventListener("input", () => this.seek(Number(this.seek_bar.value)));
    this.seek_bar.addEventListener("keydown", (event) => {
      // A tenth of a second is too little for a key.
      const steps = { ArrowLeft: -5, ArrowRight: 5, ArrowDown: -5, ArrowUp: 5, PageUp: 30, PageDown: -30 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.seek(this.now() + steps[event.key]);
    });
    this.time = make("span", { class: "ub-time" });
    this.meter = make("span", { class: "ub-meter", "aria-hidden": "true" }, make("i"));
    this.said = make("p", { class: "ub-said", role: "status" });
    const transport = make(
      "div", { class: "ub-transport", role: "group", "aria-label": "Play" },
      this.play_button, this.seek_bar, this.time, this.meter,
    );
    const list = make("ul", { class: "ub-tracks", "aria-label": "Tracks" });
    this.playheads = [];
    for (const track of this.tracks) list.append(this.row(track));
    element.replaceChildren(transport, this.said, list);
    this.show();
  }

  row(track) {
    const isMixture = track === this.mixture;
    const title = isMixture ? "the mixture" : track.name;
    const toggle = (text, hint, pressed) => {
      const button = make("button", { type: "button", "aria-label": `${hint} ${title}`, title: hint }, text);
      button.addEventListener("click", () => { pressed(); this.apply(); });
      return button;
    };
    track.mute_button = toggle("Mute", "Mute", () => { track.isMuted = !track.isMuted; });
    track.solo_button = toggle("Solo", "Solo", () => { track.isSolo = !track.isSolo; });
    const volume = make("input", {
      type: "range", min: 0, max: 1.5, step: 0.05, value: 1, "aria-label": `Volume of ${title}`,
      "aria-valuetext": "100 percent",
    });
    volume.addEventListener("input", () => {
      track.volume = Number(volume.value);
      volume.setAttribute("aria-valuetext", `${Math.round(100 * track.volume)} percent`);
      this.apply();
    });
    const controls = make("div", { class: "ub-controls" }, track.mute_button, track.solo_button, volume);
    const head = make("div", { class: "ub-head" }, make("h3", {}, isMixture ? "Mixture" : track.name));
    for (const line of this.facts(track)) head.append(line);
    if (track.download)
      controls.append(make(
        "a", { class: "ub-download", href: track.download, download: track.file,
          "aria-label": `Download ${track.name}, ${size(track.size_bytes)}` },
        `Download ${size(track.size_bytes)}`,
      ));
    const head_line = make("i", { class: "ub-playhead" });
    this.playheads.push(head_line);
    const picture = make(
      "div", { class: "ub-picture" },
      make("img", { src: track.picture, alt: `Spectrogram of ${title}`, draggable: "false" }),
      make("span", { class: "ub-high", "aria-hidden": "true" }, "20 kHz"),
      make("span", { class: "ub-low", "aria-hidden": "true" }, "50 Hz"),
      head_line,
    );
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      this.seek(((event.clientX - box.left) / box.width) * this.duration);
    });
    const view = make("div", { class: "ub-view" }, picture);
    if (track.score !== null) view.append(this.strip(track));
    const row = make("li", { class: isMixture ? "ub-track ub-mixture" : "ub-track" }, head, view, controls);
    track.row = row;
    return row;
  }

  facts(track) {
    const lines = [];
    const level = track.level_dbfs;
    if (track === this.mixture) return [make("p", {}, "What you brought. Muted, so that you hear the stems.")];
    if (track.score !== null) {
      const isThere = track.score >= 0.5;
      lines.push(make(
        "p", { class: isThere ? "ub-there" : "ub-absent" },
        `${isThere ? "There" : "Seems to be absent"} (presence ${track.score.toFixed(2)})`,
      ));
    }
    lines.push(make("p", {}, level === null ? "Silent" : `Level ${level.toFixed(1)} dBFS`.replace("-", "\u2212")));
    return lines;
  }

  // When the sound is there, as bars below its picture.
  strip(track) {
    const parts = track.intervals.map(([from, to]) => `${clock(from)} to ${clock(to)}`);
    const strip = make("div", {
      class: "ub-strip", role: "img",
      "aria-label": parts.length ? `${track.name} is there from ${parts.join(", ")}` : `${track.name} is nowhere there`,
    });
    for (const [from, to] of track.intervals)
      strip.append(make("i", {
        style: `left:${(100 * from) / this.duration}%;width:${(100 * (to - from)) / this.duration}%`,
      }));
    return strip;
  }

  isHeard(track) {
    const anySolo = this.tracks.some((other) => other.isSolo);
    return anySolo ? track.isSolo : !track.isMuted;
  }

  show() {
    const at = this.now();
    this.play_button.textContent = this.isPlaying ? "Pause" : "Play";
    this.play_button.classList.toggle("ub-on", this.isPlaying);
    this.seek_bar.value = at;
    this.seek_bar.setAttribute("aria-valuetext", `${spoken(at)} of ${spoken(this.duration)}`);
    this.time.textContent = `${clock(at)} / ${clock(this.duration)}`;
    for (const line of this.playheads) line.style.left = `${(100 * at) / this.duration}%`;
    for (const track of this.tracks) {
      track.mute_button.setAttribute("aria-pressed", track.isMuted);
      track.solo_button.setAttribute("aria-pressed", track.isSolo);
      track.row.classList.toggle("ub-quiet", !this.isHeard(track));
    }
    this.meter.firstChild.style.width = `${Math.min(100, 100 * this.level())}%`;
  }

  say(text) {
    this.said.textContent = text;
  }

  // ---------------------------------------------------------------- what it sounds like

  // Where it is, in seconds.
  now() {
    if (!this.isPlaying) return this.position;
    return Math.min(this.duration, Math.max(this.position, this.position + this.context.currentTime - this.begun));
  }

  // The highest sample of what is heard just now.
  level() {
    if (!this.isPlaying) return 0;
    const samples = new Float32Array(this.analyser.fftSize);
    this.analyser.getFloatTimeDomainData(samples);
    return samples.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0);
  }

  async ready() {
    if (this.context) return;
    await Promise.all(this.tracks.map((track) => track.sound.open()));
    const rate = this.tracks[0].sound.rate;
    // At the rate of the files nothing is resampled, so that stretches meet without a click.
    try {
      this.context = new AudioContext({ sampleRate: rate });
    } catch {
      this.context = new AudioContext();
    }
    this.analyser = this.context.createAnalyser();
    this.analyser.connect(this.context.destination);
    for (const track of this.tracks) {
      track.gain = this.context.createGain();
      track.gain.gain.value = this.isHeard(track) ? track.volume : 0;
      track.gain.connect(this.analyser);
    }
  }

  // Brings mute, solo and volume to the ear.
  apply() {
    for (const track of this.tracks)
      track.gain?.gain.setTargetAtTime(this.isHeard(track) ? track.volume : 0, this.context.currentTime, 0.01);
    this.show();
  }

  async toggle() {
    if (this.isPlaying) this.pause();
    else await this.start();
  }

  async start() {
    const run = ++this.run;
    try {
      this.say("");
      if (this.position >= this.duration - 0.05) this.position = 0;
      await this.ready();
      await this.context.resume();
      let next = this.position;
      let stretches = await this.fetch(next);
      if (run !== this.run) return;
      // At a whole frame, so that stretches meet without a gap.
      const frames = this.context.sampleRate;
      this.begun = Math.ceil((this.context.currentTime + 0.06) * frames) / frames;
      const origin = this.position;
      this.isPlaying = true;
      requestAnimationFrame(this.tick);
      while (run === this.run && stretches) {
        this.schedule(stretches, this.begun + (next - origin));
        next += STRETCH_S;
        while (run === this.run && next - this.now() > AHEAD_S) await new Promise((done) => setTimeout(done, 200));
        if (run !== this.run || next >= this.duration) break;
        stretches = await this.fetch(next);
      }
    } catch (error) {
      if (run !== this.run) return;
      this.pause();
      this.say(error.message);
    }
  }

  async fetch(at) {
    const stretches = await Promise.all(this.tracks.map(({ sound }) => sound.stretch(
      this.context, Math.round(at * sound.rate), Math.round(STRETCH_S * sound.rate),
    )));
    return stretches.some((stretch) => stretch) ? stretches : null;
  }

  schedule(stretches, when) {
    // What should have begun already begins in its middle.
    const late = Math.max(0, this.context.currentTime - when);
    stretches.forEach((buffer, place) => {
      if (!buffer || late >= buffer.duration) return;
      const node = this.context.createBufferSource();
      node.buffer = buffer;
      node.connect(this.tracks[place].gain);
      node.start(when + late, late);
      node.addEventListener("ended", () => { this.nodes = this.nodes.filter((other) => other !== node); });
      this.nodes.push(node);
    });
  }

  pause() {
    this.position = this.now();
    this.stop();
    this.show();
  }

  stop() {
    this.run += 1;
    this.isPlaying = false;
    for (const node of this.nodes) node.stop();
    this.nodes = [];
  }

  seek(seconds) {
    const goesOn = this.isPlaying;
    this.stop();
    this.position = Math.min(this.duration, Math.max(0, seconds));
    this.show();
    if (goesOn) this.start();
  }

  tick() {
    if (!this.isPlaying) return;
    if (this.now() >= this.duration) {
      this.stop();
      this.position = 0;
    } else requestAnimationFrame(this.tick);
    this.show();
  }

  leave() {
    this.stop();
    this.context?.close();
  }
}

let mixer = null;
const redraw = () => {
  const shown = props.value;
  mixer?.leave();
  mixer = null;
  const place = element.querySelector(".ub-mixer");
  place.replaceChildren();
  if (!shown) return;
  mixer = new Mixer(place, shown);
};
watch("value", redraw);
redraw();
