"use strict";
(() => {
  const id = (name) => document.getElementById(name);
  const state = { points: [] };
  const SPAN = 300; // seconds that the plots show
  const LOST_AFTER = 4000; // ms without news after which the page no longer claims to know
  const REASONS = { full: "they were full", timeout: "their time was over", asked: "somebody waited", single: "they travel alone" };
  let heard = 0, lost = false, hover = null;

  // Words -----------------------------------------------------------------------------------------------------------
  const whole = (n) => Math.round(n).toLocaleString("en");
  const rate = (n) => (n > 0 && n < 10 ? n.toFixed(1) : whole(n));
  const short = (n) => (n >= 1e6 ? (n / 1e6).toFixed(n % 1e6 ? 1 : 0) + "M" : n >= 1e4 ? (n / 1e3).toFixed(n % 1e3 ? 1 : 0) + "k" : whole(n));
  const jobs = (n) => `${whole(n)} ${n === 1 ? "job" : "jobs"}`;
  const bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = 0;
    while (n >= 1024 && step < 4) { n /= 1024; step += 1; }
    return `${n < 10 && step && n % 1 ? n.toFixed(1) : Math.round(n)} ${units[step]}`;
  };
  const span = (s) => {
    if (s < 1) return `${s < 0.01 ? (s * 1000).toFixed(1) : Math.round(s * 1000)} ms`;
    if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  };
  const clock = (at) => {
    const when = new Date(at * 1000);
    const day = when.toDateString() === new Date().toDateString() ? "" : when.toLocaleDateString("sv") + " ";
    return day + when.toLocaleTimeString("sv");
  };

  // Elements --------------------------------------------------------------------------------------------------------
  const put = (name, text) => { const at = id(name); if (at.textContent !== text) at.textContent = text; };
  const show = (name, yes) => { id(name).hidden = !yes; };
  const level = (name, value) => { if (value) id(name).dataset.level = value; else delete id(name).dataset.level; };
  const make = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const draw = (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const withCode = (at, text) => { // `code` in backquotes
    if (at.dataset.text === text) return;
    at.dataset.text = text;
    at.replaceChildren(...text.split("`").map((part, i) => (i % 2 ? make("code", part) : document.createTextNode(part))));
  };
  const list = (name, pairs) => {
    const key = JSON.stringify(pairs);
    const at = id(name);
    if (at.dataset.key === key) return;
    at.dataset.key = key;
    at.replaceChildren(...pairs.map(([term, value, share, full]) => {
      const group = make("div");
      const dd = make("dd", value);
      if (share !== undefined) {
        const meter = make("span", undefined, { class: "meter" });
        if (share >= 0.9 || full) meter.dataset.level = "bad"; else if (share >= 0.7) meter.dataset.level = "warning";
        const fill = make("i");
        fill.style.width = `${Math.min(100, share * 100)}%`;
        meter.append(fill, make("b"));
        dd.append(meter);
      }
      group.append(make("dt", term), dd);
      return at.classList.contains("wide") ? [group] : [...group.childNodes];
    }).flat());
  };

  // The verdict -----------------------------------------------------------------------------------------------------
  const SIGNS = {
    good: ["M24 3a21 21 0 1 0 0 42 21 21 0 0 0 0-42z", "M14 24.5l7 7L34.5 17"],
    note: ["M24 3a21 21 0 1 0 0 42 21 21 0 0 0 0-42z", "M24 21v13M24 13.5v.5"],
    warning: ["M24 4L46 43H2z", "M24 18v12M24 36v.5"],
    bad: ["M15.5 3.5h17l12 12v17l-12 12h-17l-12-12v-17z", "M16.5 16.5l15 15M31.5 16.5l-15 15"],
    wait: ["M24 3a21 21 0 1 0 0 42 21 21 0 0 0 0-42z", "M24 12v13l8 5"],
  };
  const COLOURS = { good: "#1a9c50", note: "#2f7fd6", warning: "#d98a00", bad: "#d6322f", wait: "#888888" };
  function sign(kind) {
    if (id("sign").dataset.kind === kind) return;
    id("sign").dataset.kind = kind;
    const [shape, mark] = SIGNS[kind];
    id("sign").replaceChildren(
      draw("path", { d: shape, fill: "currentColor" }),
      draw("path", { d: mark, fill: "none", stroke: "var(--back)", "stroke-width": 5, "stroke-linecap": "round", "stroke-linejoin": "round" }));
    const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><path d="${shape}" fill="${COLOURS[kind]}"/>`
      + `<path d="${mark}" fill="none" stroke="#fff" stroke-width="5" stroke-linecap="round" stroke-linejoin="round"/></svg>`;
    id("icon").href = "data:image/svg+xml," + encodeURIComponent(icon);
  }
  function verdict(now) {
    const [first, ...others] = now.findings;
    id("verdict").dataset.level = first.level;
    id("verdict").dataset.condition = first.condition;
    put("verdict-title", first.title);
    withCode(id("verdict-text"), first.text);
    sign(first.level);
    const key = JSON.stringify(others);
    if (id("others").dataset.key !== key) {
      id("others").dataset.key = key;
      id("others").replaceChildren(...others.map((finding) => {
        const item = make("li", undefined, { "data-level": finding.level, "data-condition": finding.condition });
        const text = make("span");
        withCode(text, finding.text);
        item.append(make("strong", finding.title), text);
        return item;
      }));
    }
    // Read aloud when something changes, not at each change of a number.
    const said = now.findings.map((finding) => finding.condition).join();
    if (id("announce").dataset.said !== said) {
      id("announce").dataset.said = said;
      put("announce", now.findings.map((finding) => finding.title).join(". "));
    }
    document.title = `${first.title} – faktory-sidecar`;
  }

  function path(now) {
    const { link, journal } = now;
    const refusing = now.findings.some((finding) => finding.condition === "refusing");
    put("rate-in", rate(now.taken_rate));
    put("rate-out", rate(now.delivered_rate));
    put("producers", `${whole(now.producers)} ${now.producers === 1 ? "producer" : "producers"} connected`
      + (now.consumers ? `, ${whole(now.consumers)} ${now.consumers === 1 ? "worker connection" : "worker connections"}` : ""));
    put("ack", refusing ? "refused" : "accepted");
    level("way-in", refusing ? "bad" : "");
    id("way-in").dataset.cut = refusing ? "yes" : "no";
    put("queue-name", now.mode === "disk" ? "Waiting in the journal" : "Waiting here");
    put("waiting", whole(now.waiting));
    put("waiting-unit", now.waiting === 1 ? " job" : " jobs");
    put("oldest", now.waiting ? `the oldest for ${now.oldest < 2 ? "less than 2 s" : span(now.oldest)}` : "nothing waits");
    level("stop-queue", refusing ? "bad" : now.waiting && now.oldest > 30 ? "warning" : "");
    put("trip", link.up ? `${span(link.round_trip)} away` : "no link");
    level("way-out", link.up ? "" : now.findings.find((finding) => finding.condition === "upstream_down")?.level ?? "note");
    id("way-out").dataset.cut = link.up ? "no" : "yes";
    put("faktory", link.version ? `Faktory ${link.version}` : "Faktory");
    put("link", `${link.up ? "link up" : "link down"} for ${span(link.since)}` + (link.in_flight ? `, ${jobs(link.in_flight)} in flight` : ""));
    const store = [];
    if (journal) {
      const share = journal.bytes / journal.max_bytes;
      store.push(["Journal", `${bytes(journal.bytes)} of ${bytes(journal.max_bytes)} (${Math.round(share * 100)} %)`, share, refusing]);
      store.push(["Holds", `${jobs(journal.jobs)}, ${whole(journal.dead)} dead ${journal.dead === 1 ? "letter" : "letters"}`
        + (journal.damaged ? `, ${whole(journal.damaged)} damaged` : "")]);
      store.push(["Commit, fsync", journal.commit_p50 === null ? "none in the last minutes"
        : `half within ${span(journal.commit_p50)}, 99 % within ${span(journal.commit_p99)}`]);
      store.push(["Directory", journal.directory]);
    }
    if (!journal || now.memory) {
      store.push(["Only in memory", `${bytes(now.memory)} of ${bytes(now.memory_max)}`, now.memory / now.memory_max]);
    }
    list("store", store);
  }

  // Plots -----------------------------------------------------------------------------------------------------------
  const nice = (top) => {
    const power = 10 ** Math.floor(Math.log10(Math.max(top, 1)));
    return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= top && step % 1 === 0) ?? 10 * power;
  };
  function series(name, lines, label) {
    const at = id(name), width = at.clientWidth, height = 150, left = 46, bottom = 20, top = 8;
    if (width < left * 2) return; // no layout yet
    const now = state.now ? Math.round(state.now.at) : 0;
    const points = state.points.filter((point) => point[0] > now - SPAN);
    const most = nice(Math.max(1, ...lines.flatMap((line) => points.map((point) => point[line.column]))));
    const x = (t) => left + (width - left - 6) * (1 - (now - t) / SPAN);
    const y = (v) => height - bottom - (height - bottom - top) * (v / most);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label(points) });
    for (const [i, value] of [0, most / 2, most].entries()) {
      if (value % 1 && i === 1) continue;
      svg.append(draw("line", { class: "grid", x1: left, x2: width - 6, y1: y(value), y2: y(value) }),
        draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
    }
    for (const [text, t, anchor] of [["5 min ago", now - SPAN, "start"], ["now", now, "end"]]) {
      svg.append(draw("text", { x: x(t), y: height - 4, "text-anchor": anchor }, text));
    }
    for (const line of lines) {
      if (!points.length) continue;
      const along = points.map((point) => `${x(point[0]).toFixed(1)},${y(point[line.column]).toFixed(1)}`);
      if (line.area) {
        const foot = y(0);
        svg.append(draw("polygon", { class: `area ${line.key}`, points: `${x(points[0][0])},${foot} ${along.join(" ")} ${x(points.at(-1)[0])},${foot}` }));
      }
      svg.append(draw("polyline", { class: `stroke ${line.key}`, points: along.join(" ") }));
    }
    if (hover && hover.plot === name && points.length) {
      const t = now - SPAN * (1 - (hover.x - left) / (width - left - 6));
      const near = points.reduce((best, point) => (Math.abs(point[0] - t) < Math.abs(best[0] - t) ? point : best));
      const text = `${clock(near[0])}  ` + lines.map((line) => `${line.word} ${whole(near[line.column])}`).join("  ");
      const right = x(near[0]) > width / 2;
      svg.append(draw("line", { class: "hand", x1: x(near[0]), x2: x(near[0]), y1: top, y2: height - bottom }),
        draw("text", { class: "value", x: x(near[0]) + (right ? -6 : 6), y: top + 10, "text-anchor": right ? "end" : "start" }, text));
    }
    at.replaceChildren(svg);
  }
  function rates() {
    const refused = state.points.some((point) => point[3] > 0);
    show("key-refused", refused);
    const lines = [{ column: 1, key: "in", area: true, word: "in" }, { column: 2, key: "out", word: "out" }];
    if (refused) lines.push({ column: 3, key: "no", word: "refused" });
    series("plot-rates", lines, (points) => {
      const last = points.at(-1) ?? [0, 0, 0, 0, 0];
      return `Jobs a second over five minutes. In the last second ${last[1]} in and ${last[2]} out.`;
    });
    series("plot-waiting", [{ column: 4, key: "wait", area: true, word: "waiting" }],
      (points) => `Jobs waiting over five minutes, at most ${Math.max(0, ...points.map((point) => point[4]))}, now ${points.at(-1)?.[4] ?? 0}.`);
  }
  function batches() {
    const { batches: { sizes, advice, max_size: limit }, head: { reasons, bounds } } = state;
    id("advice").dataset.verdict = advice.verdict;
    put("advice-title", advice.title + (advice.title.endsWith(".") ? "" : "."));
    put("advice-text", advice.text);
    const last = Math.max(bounds.findIndex((bound) => bound >= limit), ...reasons.map((reason) => sizes[reason].findLastIndex((n) => n > 0)));
    const buckets = bounds.slice(0, last + 1).map((bound, i) => ({
      name: i && bound - bounds[i - 1] > 1 ? `${short(bounds[i - 1] + 1)}–${short(bound)}` : short(bound),
      counts: reasons.map((reason) => sizes[reason][i]),
    }));
    const sums = buckets.map((bucket) => bucket.counts.reduce((a, b) => a + b, 0));
    const total = sums.reduce((a, b) => a + b, 0);
    const at = id("plot-batches"), width = at.parentElement.clientWidth - 36, height = 150, bottom = 34, top = 18;
    if (width < 100) return; // no layout yet
    const key = JSON.stringify([sizes, width, limit]);
    if (at.dataset.key === key) return;
    at.dataset.key = key;
    at.hidden = !total;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
      "aria-label": `Batches by size: ${buckets.map((bucket, i) => [sums[i], bucket.name]).filter(([n]) => n).map(([n, name]) => `${n} of ${name} jobs`).join(", ") || "none"}` });
    const step = width / buckets.length, most = Math.max(1, ...sums);
    svg.append(draw("line", { class: "grid", x1: 0, x2: width, y1: height - bottom, y2: height - bottom }));
    buckets.forEach((bucket, i) => {
      let foot = height - bottom;
      bucket.counts.forEach((count, r) => {
        if (!count) return;
        const tall = Math.max(2, (height - bottom - top) * (count / most));
        foot -= tall;
        svg.append(draw("rect", { class: `bar ${reasons[r]}`, x: i * step + step * 0.12, y: foot, width: step * 0.76, height: tall }));
      });
      const middle = (i + 0.5) * step;
      if (sums[i]) svg.append(draw("text", { class: "value", x: middle, y: foot - 4, "text-anchor": "middle" }, short(sums[i])));
      svg.append(draw("text", { class: step < 44 ? "small" : "", x: middle, y: height - 19, "text-anchor": "middle" }, bucket.name));
    });
    svg.append(draw("text", { x: width / 2, y: height - 3, "text-anchor": "middle" }, "jobs in a batch"));
    at.replaceChildren(svg);
    id("reasons").replaceChildren(...reasons.map((reason) => [reason, sizes[reason].reduce((a, b) => a + b, 0)]).filter(([, n]) => n).map(([reason, n]) => {
      const item = make("li");
      item.append(make("span", undefined, { class: `key ${reason}`, "aria-hidden": "true" }),
        `${Math.round((100 * n) / total)} % left because ${REASONS[reason]}`);
      return item;
    }));
  }

  // Tables ----------------------------------------------------------------------------------------------------------
  const alike = (letters) => { // one row for what differs by the job alone, with the latest of them
    const groups = new Map();
    for (const letter of letters) {
      const key = JSON.stringify([letter.reason, letter.type, letter.queue]);
      const group = groups.get(key);
      if (group) group.more += 1; else groups.set(key, { ...letter, more: 0 });
    }
    return [...groups.values()];
  };
  const row = (letter) => {
    const tr = make("tr");
    const jid = make("td", undefined, { "data-name": "Job" });
    jid.append(make("code", letter.jid));
    if (letter.more) jid.append(` and ${letter.more} more`);
    tr.append(make("td", letter.reason, { class: "words" }), make("td", letter.type, { "data-name": "Type" }),
      make("td", letter.queue, { "data-name": "Queue" }), jid, make("td", letter.at ? clock(letter.at) : "", { class: "time", "data-name": letter.more ? "Latest" : "At" }));
    return tr;
  };
  function letters() {
    const count = state.now?.journal?.dead ?? 0, shown = count ? state.letters : [];
    put("letters-count", count ? whole(count) : "");
    level("card-letters", count ? "warning" : "");
    show("letters-none", !count);
    show("letters-some", count > 0);
    put("letters-more", count > shown.length && shown.length ? `The latest ${shown.length} of ${whole(count)}.` : "");
    const key = JSON.stringify(shown);
    if (id("letters").dataset.key === key) return;
    id("letters").dataset.key = key;
    id("letters").replaceChildren(...alike(shown).map(row));
  }
  const OURS = {
    full: "for want of room", journal: "by the journal, full or with a disk that doesn't work", slow_disk: "in doubt, the disk was too slow", not_sent: "not sent, Faktory away or too slow",
    in_doubt: "in doubt, no reply in time", line_too_long: "line too long",
  };
  function refused() {
    const { totals } = state;
    const dead = totals.dead ? `, ${whole(totals.dead)} of them after their +OK` : "";
    const ours = Object.entries(totals.refusals);
    const sum = totals.rejected + ours.reduce((all, [, n]) => all + n, 0);
    put("refused-count", sum ? whole(sum) : "");
    show("refused-none", !sum);
    show("refusals", sum > 0);
    list("refusals", [...(totals.rejected ? [["by Faktory", `${whole(totals.rejected)}${dead}`]] : []), ...ours.map(([reason, n]) => [OURS[reason] ?? reason, whole(n)])]);
    const told = state.refused.filter((job) => !job.dead || !state.now.journal);
    show("refused-some", told.length > 0);
    const key = JSON.stringify(told);
    if (id("refused").dataset.key === key) return;
    id("refused").dataset.key = key;
    id("refused").replaceChildren(...alike(told).map(row));
  }
  function totals() {
    const { totals: sum } = state;
    put("uptime", span(state.now.at - state.head.started));
    list("totals", [["jobs taken", whole(sum.taken)], ["accepted by Faktory", whole(sum.delivered)], ["refused by Faktory", whole(sum.rejected)],
      ["sent again", whole(sum.resent)], ["in doubt", whole(sum.in_doubt)], ["commands passed on", whole(sum.passed)], ["links made", whole(state.now.link.connects)]]);
  }
  function settings() {
    put("settings-count", `${state.settings.filter((setting) => setting.changed).length} not at their default`);
    id("settings").replaceChildren(...state.settings.map((setting) => {
      const tr = make("tr", undefined, setting.changed ? { class: "changed" } : {});
      const name = make("th", undefined, { scope: "row" });
      name.append(make("code", setting.name));
      tr.append(name, make("td", setting.value), make("td", setting.help));
      return tr;
    }));
  }

  // News ------------------------------------------------------------------------------------------------------------
  function take(news) {
    const last = state.points.at(-1)?.[0] ?? 0;
    const points = "head" in news ? news.points : state.points.concat(news.points.filter((point) => point[0] > last));
    Object.assign(state, news, { points: points.slice(-SPAN) });
    if (news.head) {
      put("version", news.head.version);
      put("upstream", news.head.upstream);
      put("promise-title", `+OK means: ${news.head.promise.title}.`);
      put("promise-text", news.head.promise.text);
      id("promise").dataset.weak = news.head.promise.weak ? "yes" : "no";
    }
    if (news.settings) settings();
    render();
  }
  function render() {
    verdict(state.now);
    path(state.now);
    rates();
    batches();
    letters();
    refused();
    totals();
  }
  function live(kind, text) { id("live").dataset.live = kind; put("live-text", text); }
  function lose() {
    if (lost || !heard || Date.now() - heard < LOST_AFTER) return;
    lost = true;
    document.body.classList.add("lost");
    live("no", "no news");
    put("stale", `No answer from the sidecar since ${new Date(heard).toLocaleTimeString("sv")}. What stands below is from then.`);
    show("stale", true);
    put("verdict-title", "Unknown");
    withCode(id("verdict-text"), "The sidecar doesn't answer, or this page has no connection to it. It goes on trying.");
    id("verdict").dataset.level = "wait";
    id("others").replaceChildren();
    delete id("others").dataset.key;
    sign("wait");
    put("announce", "No answer from the sidecar");
    delete id("announce").dataset.said;
    document.title = "No answer – faktory-sidecar";
  }
  function news(event) {
    heard = Date.now();
    if (lost) {
      lost = false;
      document.body.classList.remove("lost");
      show("stale", false);
    }
    live("yes", "live");
    take(JSON.parse(event.data));
  }
  let source;
  function connect() {
    source = new EventSource("status/events");
    source.onmessage = news;
    source.onerror = () => { // a browser gives up for good on an answer that is no stream (503, a proxy's page)
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
    };
  }

  for (const name of ["plot-rates", "plot-waiting"]) {
    id(name).addEventListener("pointermove", (event) => { hover = { plot: name, x: event.offsetX }; rates(); });
    id(name).addEventListener("pointerleave", () => { hover = null; rates(); });
  }
  take(JSON.parse(id("first").textContent));
  heard = Date.now();
  connect();
  setInterval(lose, 1000);
  new ResizeObserver(() => { rates(); batches(); }).observe(document.querySelector(".cards"));
})();
