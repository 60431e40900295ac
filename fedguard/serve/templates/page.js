"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const SIZE = 50;
  let offset = 0, shown = null, open = null, found = null, rounds = data.rounds || [];

  // Text of clients goes into text nodes only.
  const cell = (row, text, kind) => {
    const td = row.insertCell();
    if (text instanceof Node) td.append(text); else td.textContent = text;
    if (kind) td.className = kind;
  };
  const short = (x) => x === null || x === undefined ? "–" : x === "inf" ? "∞" : typeof x === "number" ? String(Number(x.toPrecision(4))) : x;
  const problem = (text) => { $("problem").textContent = text; $("problem").hidden = !text; };
  const svg = (name, facts, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(facts)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  async function ask(path, body) {
    const options = body ? {method: "POST", headers: {"content-type": "application/json", "x-csrf-token": data.csrf}, body: JSON.stringify(body)} : {};
    const answer = await fetch(path, {credentials: "same-origin", cache: "no-store", ...options});
    if (answer.status === 401) { location.reload(); return null; }
    const values = await answer.json();
    if (!answer.ok) throw new Error(values.error || answer.statusText);
    return values;
  }

  function pageOfFile() {
    const wanted = $("search").value, which = $("which").value;
    const fits = (e) => String(e.name).includes(wanted) && (which === "all" || (which === "banned" ? e.banned : which === "back" ? e.ever_banned && !e.banned : !e.ever_banned));
    const all = data.page.entries.filter(fits);
    return {...data.page, found: all.length, offset, entries: all.slice(offset, offset + SIZE)};
  }

  async function load() {
    try {
      const query = new URLSearchParams({offset, limit: SIZE, which: $("which").value, search: $("search").value.toWellFormed ? $("search").value.toWellFormed() : $("search").value});
      const values = data.live ? await ask("/api/clients?" + query) : pageOfFile();
      if (values) { found = values; table(); problem(""); }
    } catch (error) { problem(error.message); }
  }

  function table() {
    const focused = document.activeElement && document.activeElement.dataset.number;
    const rows = $("rows");
    rows.replaceChildren();
    for (const e of found.entries) {
      const row = rows.insertRow(), link = document.createElement("button");
      link.type = "button"; link.textContent = e.name; link.dataset.number = e.number;
      link.addEventListener("click", () => tell(e.number, true));
      if (e.banned) row.className = "out";
      cell(row, link); cell(row, e.rounds, "n"); cell(row, e.strikes, "n"); cell(row, short(e.score), "n");
      cell(row, e.standing, "m"); cell(row, e.why, "w");
      if (focused === String(e.number)) link.focus();
    }
    const last = offset + found.entries.length, left = found.clients - (data.page ? data.page.entries.length : found.clients);
    $("where").textContent = found.found ? `${offset + 1}–${last} of ${found.found}` + (left > 0 ? ` (${left} more clients are not in this file)` : "") : "none";
    $("before").disabled = offset === 0;
    $("after").disabled = last >= found.found;
    const upTo = found.next_round ? `judged up to round ${found.next_round - 1}` : "no round yet";
    const head = `${data.title}: ${found.clients} clients, ${found.banned} banned, ${upTo}${data.live && !data.writable ? ", read-only" : ""}`;
    if ($("head").textContent !== head) $("head").textContent = head;
  }

  async function tell(number, focus) {
    try {
      const values = data.live ? await ask("/api/client?number=" + number) : data.stories[number];
      if (!values) return;
      shown = number; open = values;
      story(focus); problem("");
    } catch (error) { problem(error.message); }
  }

  function story(focus) {
    $("client").hidden = false;
    $("name").textContent = "Client " + open.name;
    $("standing").textContent = `${open.standing}. Judged in ${open.rounds} rounds; ${open.judged} verdicts on record.` + (open.why ? ` Why: ${open.why}` : "");
    $("chart").replaceChildren(chart(open.verdicts.map((v) => [v.round, v.score, v.suspect]), `Scores of client ${open.name}`));
    $("verdicts").replaceChildren();
    for (const v of [...open.verdicts].reverse()) {
      const row = $("verdicts").insertRow();
      cell(row, v.round, "n"); cell(row, short(v.score), "n");
      cell(row, v.forgiven ? "forgiven" : v.suspect ? "strike" : "–"); cell(row, v.reason, "w");
    }
    const lines = [...open.actions].reverse().map((a) => {
      const line = document.createElement("li");
      line.textContent = `${a.time}: ${a.what} from round ${a.since}${a.until === null ? "" : ` until round ${a.until}`} by ${a.by}: ${a.why}`;
      return line;
    });
    $("actions").replaceChildren(...lines);
    $("act").hidden = !data.live || !data.writable;
    $("acting").textContent = open.ever_banned ? "Lift the ban and forgive the strikes" + (open.banned ? "" : ", or ban again") : "Ban this client";
    $("ban").hidden = open.banned; $("lasting").hidden = open.banned; $("unban").hidden = !open.ever_banned;
    if (focus) $("name").focus();
  }

  // Finite scores as a line; strikes as squares; unusable updates at the top.
  function chart(points, title) {
    const W = 720, H = 180, L = 60, R = 12, T = 12, B = 28;
    const finite = points.filter((p) => typeof p[1] === "number");
    if (!points.length) return document.createTextNode("");
    const low = Math.min(...finite.map((p) => p[1]), Infinity), high = Math.max(...finite.map((p) => p[1]), -Infinity);
    const first = points[0][0], last = points[points.length - 1][0];
    const x = (r) => L + (W - L - R) * (last > first ? (r - first) / (last - first) : 0.5);
    const y = (s) => s === "inf" ? T : high > low ? H - B - (H - T - B) * (s - low) / (high - low) : (H - B + T) / 2;
    const range = finite.length ? `from ${short(low)} to ${short(high)}` : "none finite";
    const strikes = points.filter((p) => p[2]).length;
    const root = svg("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: rounds ${first} to ${last}, ${range}, ${strikes} strikes. The table below has every value.`});
    root.append(svg("line", {x1: L, y1: H - B, x2: W - R, y2: H - B, class: "axis"}), svg("line", {x1: L, y1: T, x2: L, y2: H - B, class: "axis"}));
    root.append(svg("text", {x: L, y: H - 8}, `round ${first}`), svg("text", {x: W - R, y: H - 8, "text-anchor": "end"}, `round ${last}`));
    if (finite.length) {
      root.append(svg("text", {x: L - 6, y: T + 8, "text-anchor": "end"}, short(high)));
      if (high > low) root.append(svg("text", {x: L - 6, y: H - B, "text-anchor": "end"}, short(low)));
      root.append(svg("polyline", {class: "path", points: finite.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ")}));
    }
    for (const [r, s, suspect] of points) {
      if (s !== "inf" && typeof s !== "number") continue;
      const cx = x(r), cy = y(s);
      root.append(suspect ? svg("rect", {class: "strike", x: cx - 5, y: cy - 5, width: 10, height: 10}) : svg("circle", {class: "dot", cx, cy, r: 3}));
    }
    return root;
  }

  const listed = (list) => list.count ? `${list.count}: ${list.names.join(", ")}${list.count > list.names.length ? ", …" : ""}` : "–";
  function history() {
    $("norounds").hidden = rounds.length > 0;
    $("heard").replaceChildren();
    for (const r of [...rounds].reverse()) {
      const row = $("heard").insertRow();
      const seconds = Object.entries(r.seconds).map(([part, s]) => `${part} ${typeof s === "number" ? s.toFixed(3) : s}`).join(", ");
      if (r.new_bans.count) row.className = "out";
      cell(row, r.round, "n"); cell(row, String(r.time).slice(0, 19).replace("T", " ")); cell(row, r.clients, "n");
      cell(row, listed(r.suspects), "m"); cell(row, listed(r.new_bans), "m"); cell(row, short(r.norm), "n"); cell(row, short(r.cosine), "n");
      cell(row, seconds, "w"); cell(row, r.note, "w");
    }
    $("drift").replaceChildren(chart(rounds.map((r) => [r.round, r.norm, false]), "Drift: norm of the aggregate by round"));
  }

  $("find").addEventListener("submit", (event) => { event.preventDefault(); offset = 0; load(); });
  $("which").addEventListener("change", () => { offset = 0; load(); });
  $("before").addEventListener("click", () => { offset = Math.max(0, offset - SIZE); load(); });
  $("after").addEventListener("click", () => { offset += SIZE; load(); });
  $("act").addEventListener("submit", async (event) => {
    event.preventDefault();
    const what = event.submitter ? event.submitter.value : open.banned ? "unban" : "ban";
    const body = {client: open.id, by: $("by").value, why: $("why").value};
    if (what === "ban" && $("rounds").value) body.rounds = Number($("rounds").value);
    $("ban").disabled = $("unban").disabled = true;
    try {
      await ask("/api/" + what, body);
      $("why").value = ""; $("rounds").value = "";
      await tell(shown, true); await load();
    } catch (error) { problem(error.message); }
    $("ban").disabled = $("unban").disabled = false;
  });

  history();
  load();
  if (data.live) {
    $("leave").hidden = Boolean(data.user);  // a proxy's login ends at the proxy
    if (data.user) { $("by").value = data.user; $("by").readOnly = true; }
    const stream = new EventSource("/events");
    stream.addEventListener("rounds", (event) => { rounds = JSON.parse(event.data); history(); });
    stream.addEventListener("ledger", () => { load(); if (shown !== null && !$("act").contains(document.activeElement)) tell(shown, false); });
    stream.addEventListener("error", () => { if (stream.readyState === 2) problem("The stream of rounds has ended; reload the page."); });
  }
})();
