/* The calibration's script, ES5. It works nothing out: every number is the server's answer. Forms work without it. */
(function () {
  "use strict";
  var RENEW_MS = 700, AGAIN_MS = 1000;

  /* Another step, made by somebody else, is another page. */
  function ask(url, done, failed) { kenpin.ask(url, done, failed, [204, 401, 409]); }

  function lost(place) {
    kenpin.lost(place, document.querySelector("[data-lost]").getAttribute("data-lost"), "bad large");
  }

  /* What a finger is on, or has chosen, is not taken away from under it. */
  function renew(place) {
    var every = parseInt(place.getAttribute("data-every"), 10) || RENEW_MS;
    var url = place.getAttribute("data-renew"), hold = place.getAttribute("data-hold"), last = "", pressed = false;
    function next() { window.setTimeout(load, every); }
    function isHeld() { return pressed || (hold && place.querySelector(hold)); }
    function load() {
      ask(url, function (html) {
        if (html !== last && !isHeld()) { last = html; place.innerHTML = html; }
        next();
      }, function () {
        if (!isHeld()) { last = ""; lost(place); }
        next();
      });
    }
    function press() { pressed = true; }
    function free() { window.setTimeout(function () { pressed = false; }, 300); }
    place.addEventListener("mousedown", press);
    place.addEventListener("touchstart", press);
    document.addEventListener("mouseup", free);
    document.addEventListener("touchend", free);
    next();
  }

  function pointOf(event) { return event.touches && event.touches.length ? event.touches[0] : event; }

  function limits(form) {
    var place = document.getElementById("position"), url = form.getAttribute("data-limits");
    var asking = false, again = false, dragged = "", later;
    function field(name) { return document.getElementById(name); }
    function value(name) { return parseFloat(field(name).value); }
    function show(html) {
      var fresh = document.createElement("div"), focused = document.activeElement && document.activeElement.id;
      fresh.innerHTML = html;
      if (!dragged) {
        place.innerHTML = html;
        if (focused && field(focused)) { field(focused).focus(); }
        return;
      }
      /* While a line is dragged the drawing stays, with the finger on it. */
      place.querySelector(".cards").innerHTML = fresh.querySelector(".cards").innerHTML;
      place.querySelector(".near").innerHTML = fresh.querySelector(".near").innerHTML;
    }
    function refresh() {
      if (asking) { again = true; return; }
      asking = true;
      function ready() { asking = false; if (again) { again = false; refresh(); } }
      ask(url + "?t1=" + encodeURIComponent(field("t1").value) + "&t2=" + encodeURIComponent(field("t2").value),
        function (html) { if (!again) { show(html); } ready(); },
        /* What T1 and T2 meant before they were moved must not stand beside where they are now. */
        function () {
          lost(place.querySelector(".cards"));
          ready();
          window.clearTimeout(later);
          later = window.setTimeout(refresh, AGAIN_MS);
        });
    }
    function set(name, score) {
      var other = name === "t1" ? "t2" : "t1";
      if (isNaN(score)) { return; }
      field(name).value = score;
      if (value("t1") > value("t2")) { field(other).value = score; }
      refresh();
    }
    function number(name) { return parseFloat(field("plot").getAttribute("data-" + name)); }
    /* No finer than the field shows; what somebody types is taken as it is. */
    function snapped(score) { return parseFloat(score.toFixed(number("digits"))); }
    function scoreAt(event) {
      var box = field("plot").getBoundingClientRect(), low = number("low"), high = number("high"), step = number("step");
      var scale = Math.min(box.width / 800, box.height / 304), left = box.left + (box.width - 800 * scale) / 2;
      var share = Math.min(Math.max(((pointOf(event).clientX - left) / scale - 40) / 730, 0), 1);
      return snapped(Math.round((low + share * (high - low)) / step) * step);
    }
    function slide(name) {
      var group = field("plot").querySelector("[data-handle=" + name + "]"), line = group.querySelector("line");
      var low = number("low"), share = (value(name) - low) / (number("high") - low);
      var x = 40 + 730 * Math.min(Math.max(share, 0), 1);
      group.setAttribute("transform", "translate(" + (x - parseFloat(line.getAttribute("x1"))) + ",0)");
      return x;
    }
    function zone(name, from, to) {
      var rect = field("plot").querySelector(".zone-" + name);
      rect.setAttribute("x", from);
      rect.setAttribute("width", to - from);
    }
    function down(event) {
      var node = event.target;
      while (node && node.getAttribute && !node.getAttribute("data-handle")) { node = node.parentNode; }
      if (node && node.getAttribute) { dragged = node.getAttribute("data-handle"); event.preventDefault(); }
    }
    function move(event) {
      var t1, t2;
      if (!dragged) { return; }
      set(dragged, scoreAt(event));
      t1 = slide("t1");
      t2 = slide("t2");
      zone("ok", 40, t1);
      zone("review", t1, t2);
      zone("ng", t2, 770);
    }
    function up() { if (dragged) { dragged = ""; refresh(); } }
    form.addEventListener("mousedown", down);
    form.addEventListener("touchstart", down);
    document.addEventListener("mousemove", move);
    document.addEventListener("touchmove", move);
    document.addEventListener("mouseup", up);
    document.addEventListener("touchend", up);
    form.addEventListener("change", function (event) { set(event.target.id, parseFloat(event.target.value)); });
    form.addEventListener("click", function (event) {
      var button = event.target, name = button.getAttribute && button.getAttribute("data-move");
      if (!name) { return; }
      event.preventDefault();
      set(name, snapped(value(name) + number("step") * parseFloat(button.getAttribute("data-by"))));
    });
    document.addEventListener("keydown", function (event) {
      var name = event.shiftKey ? "t2" : "t1", by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.target.tagName === "INPUT" || event.ctrlKey || event.altKey || event.metaKey) { return; }
      if (by) { event.preventDefault(); set(name, snapped(value(name) + by * number("step"))); }
      if (event.key === "s" || event.key === "S") { form.querySelector("[data-suggest]").click(); }
    });
  }

  /* Region, masks and part: the fields hold what is drawn, and are all that is sent. */
  function drawing(svg) {
    var NS = "http://www.w3.org/2000/svg", layer = svg.querySelector("g"), tool = "roi", grabbed = -1;
    var fields = { roi: document.getElementById("roi"), part: document.getElementById("part") };
    var ignoreField = document.getElementById("ignore"), size = svg.viewBox.baseVal, open = [];
    function unit() {
      var box = svg.getBoundingClientRect();
      return 1 / Math.min(box.width / size.width, box.height / size.height);
    }
    function near() { return 30 * unit(); }
    function box(name) {
      var n = fields[name].value.split(",").map(parseFloat);
      return n.length === 4 && !n.some(isNaN) ? n : null;
    }
    function roi() { return box("roi") || [0, 0, size.width, size.height]; }
    function corners() {
      var r = tool === "roi" ? roi() : tool === "part" && box("part");
      return r ? [[r[0], r[1]], [r[0] + r[2], r[1]], [r[0] + r[2], r[1] + r[3]], [r[0], r[1] + r[3]]] : [];
    }
    /* Something to drag: a square in the middle of the region. */
    function suggestPart() {
      var r = roi(), side = Math.round(Math.min(r[2], r[3]) / 2);
      fields.part.value = [Math.round(r[0] + (r[2] - side) / 2), Math.round(r[1] + (r[3] - side) / 2), side, side].join(",");
    }
    function masks() {
      return ignoreField.value.split("\n").filter(function (line) { return line.trim(); }).map(function (line) {
        return line.trim().split(/\s+/).map(function (corner) { return corner.split(",").map(parseFloat); });
      });
    }
    function add(name, attributes) {
      var made = document.createElementNS(NS, name), key;
      for (key in attributes) { if (attributes.hasOwnProperty(key)) { made.setAttribute(key, attributes[key]); } }
      layer.appendChild(made);
    }
    function dots(list) {
      list.forEach(function (p) { add("circle", { "class": "corner", cx: p[0], cy: p[1], r: 13 * unit() }); });
    }
    function draw() {
      var r = roi(), part = box("part");
      while (layer.firstChild) { layer.removeChild(layer.firstChild); }
      add("path", { "class": "outside", "fill-rule": "evenodd", d: "M0 0H" + size.width + "V" + size.height + "H0z M" + r[0] + " " + r[1] + "h" + r[2] + "v" + r[3] + "h" + (-r[2]) + "z" });
      add("rect", { "class": "edge", x: r[0], y: r[1], width: r[2], height: r[3] });
      masks().forEach(function (m) { add("polygon", { "class": "mask", points: m.join(" ") }); });
      if (part) { add("rect", { "class": "part", x: part[0], y: part[1], width: part[2], height: part[3] }); }
      if (open.length) { add("polyline", { "class": "edge", points: open.join(" ") }); dots(open); }
      dots(corners());
    }
    function at(event) {
      var box = svg.getBoundingClientRect(), u = unit(), p = pointOf(event);
      var x = (p.clientX - box.left - (box.width - size.width / u) / 2) * u;
      var y = (p.clientY - box.top - (box.height - size.height / u) / 2) * u;
      return [Math.round(Math.min(Math.max(x, 0), size.width)), Math.round(Math.min(Math.max(y, 0), size.height))];
    }
    function isNear(a, b) { return Math.abs(a[0] - b[0]) < near() && Math.abs(a[1] - b[1]) < near(); }
    function tap(p) {
      if (open.length > 2 && isNear(open[0], p)) {
        ignoreField.value += (ignoreField.value.trim() ? "\n" : "") + open.join(" ");
        open = [];
      } else { open.push([Math.min(p[0], size.width - 1), Math.min(p[1], size.height - 1)]); }
    }
    function down(event) {
      var p = at(event);
      event.preventDefault();
      if (tool === "ignore") { tap(p); } else { corners().forEach(function (c, k) { if (isNear(c, p)) { grabbed = k; } }); }
      draw();
    }
    function move(event) {
      var p, fixed;
      if (grabbed < 0) { return; }
      p = at(event);
      fixed = corners()[(grabbed + 2) % 4];
      if (Math.abs(p[0] - fixed[0]) < near() || Math.abs(p[1] - fixed[1]) < near()) { return; }
      if ((p[0] < fixed[0]) !== (grabbed === 0 || grabbed === 3) || (p[1] < fixed[1]) !== (grabbed < 2)) { return; }
      fields[tool].value = [Math.min(p[0], fixed[0]), Math.min(p[1], fixed[1]), Math.abs(p[0] - fixed[0]), Math.abs(p[1] - fixed[1])].join(",");
      draw();
    }
    svg.addEventListener("mousedown", down);
    svg.addEventListener("touchstart", down);
    document.addEventListener("mousemove", move);
    document.addEventListener("touchmove", move);
    document.addEventListener("mouseup", function () { grabbed = -1; });
    document.addEventListener("touchend", function () { grabbed = -1; });
    [fields.roi, fields.part, ignoreField].forEach(function (field) { field.addEventListener("input", draw); });
    Array.prototype.forEach.call(document.querySelectorAll("[data-tool]"), function (button) {
      button.onclick = function () {
        var name = button.getAttribute("data-tool");
        if (name === "undo") {
          if (tool === "part") { fields.part.value = ""; } else if (open.length) { open.pop(); } else { ignoreField.value = ignoreField.value.trim().split("\n").slice(0, -1).join("\n"); }
        } else {
          tool = name;
          if (tool === "part" && !box("part")) { suggestPart(); }
          Array.prototype.forEach.call(document.querySelectorAll("[data-tool]"), function (other) { other.className = other === button ? "on" : ""; });
        }
        draw();
      };
    });
    document.querySelector("[data-tools]").hidden = false;
    draw();
    /* Back from a refusal: only then has the browser put back what stood in the fields. */
    window.addEventListener("pageshow", draw);
  }

  (function start() {
    var form = document.querySelector("[data-limits]"), svg = document.querySelector("[data-drawing]");
    Array.prototype.forEach.call(document.querySelectorAll("[data-renew]"), renew);
    if (form) { limits(form); }
    if (svg) { drawing(svg); }
  }());
}());
