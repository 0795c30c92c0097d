/* The script of every page, ES5: old panel browsers read nothing newer. Every form works without it. What the
   scripts of single pages need too stands in `kenpin`; they are loaded after it. */
var kenpin = {};
(function () {
  "use strict";
  var PICTURE_MS = 300, PANEL_MS = 500, TIMEOUT_MS = 5000;

  /* Where the answer is another page, because a login has ended or what was shown has, that page is shown. */
  kenpin.ask = function (url, done, failed, elsewhere) {
    var request = new XMLHttpRequest();
    request.open("GET", url);
    request.timeout = TIMEOUT_MS;
    request.onload = function () {
      if ((elsewhere || [401]).indexOf(request.status) >= 0) { window.location.reload(); return; }
      if (request.status === 200) { done(request.responseText); } else { failed(); }
    };
    request.onerror = request.ontimeout = failed;
    request.send();
  };

  /* What was true a while ago must not look as if it were now: the words stand in its place. */
  kenpin.lost = function (place, words, name) {
    var box = document.createElement("div");
    box.className = name;
    box.setAttribute("role", "alert");
    box.appendChild(document.createTextNode(words));
    place.innerHTML = "";
    place.appendChild(box);
  };

  /* The next picture is asked for when the last one is there: a slow network gets fewer, not a queue. */
  function live(image) {
    function next() { window.setTimeout(load, document.hidden ? 4 * PICTURE_MS : PICTURE_MS); }
    function load() {
      var fresh = new Image();
      fresh.onload = function () { image.src = fresh.src; image.className = ""; next(); };
      fresh.onerror = function () { image.className = "missing"; next(); };
      fresh.src = "/live.jpg?" + new Date().getTime();
    }
    next();
  }

  /* An old verdict must not look like a new one: when the page is not answered, it says so.
     What is pressed or has the focus may be made anew meanwhile; by its id it is known to be the same. */
  function panel(place) {
    var url = place.getAttribute("data-panel"), pressed = "", isNew = false, last = "";
    function next() { window.setTimeout(load, PANEL_MS); }
    function show(html) {
      var focused = document.activeElement && document.activeElement.id;
      if (html === last) { return; }  /* else an alarm would be read aloud twice a second */
      last = html;
      place.innerHTML = html;
      isNew = true;
      if (focused && document.getElementById(focused)) { document.getElementById(focused).focus(); }
    }
    function idOf(node) {
      while (node && node !== place && !node.id) { node = node.parentNode; }
      return node && node !== place ? node.id : "";
    }
    place.addEventListener("mousedown", function (event) { pressed = idOf(event.target); isNew = false; });
    place.addEventListener("mouseup", function (event) {
      if (pressed && isNew && idOf(event.target) === pressed) { document.getElementById(pressed).click(); }
      pressed = "";
    });
    function load() {
      kenpin.ask(url, function (html) { show(html); next(); }, function () {
        last = "";
        kenpin.lost(place, place.getAttribute("data-lost"), "lost");
        next();
      });
    }
    next();
  }

  /* Digits to tap, for a panel without a keyboard; they go into the PIN that was touched last. */
  function pad(box, pins) {
    var keys = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "\u232b", "0"], input, k;
    function choose(pin) {
      for (k = 0; k < pins.length; k += 1) { pins[k].className = pins.length > 1 && pins[k] === pin ? "tapped" : ""; }
      input = pin;
    }
    function key(label) {
      var button = document.createElement("button");
      button.type = "button";
      button.appendChild(document.createTextNode(label));
      button.onclick = function () {
        input.value = label === "\u232b" ? input.value.slice(0, -1) : input.value + label;
      };
      box.appendChild(button);
    }
    Array.prototype.forEach.call(pins, function (pin) { pin.onfocus = function () { choose(pin); }; });
    choose(pins[0]);
    for (k = 0; k < keys.length; k += 1) { key(keys[k]); }
    box.hidden = false;
  }

  /* By the browser's own way back, what was typed is still there. */
  function wayBack(link) {
    link.onclick = function () {
      if (window.history.length < 2) { return true; }
      window.history.back();
      return false;
    };
  }

  /* A second tap while the first is answered would be refused, and look as if nothing had been done. */
  function sendOnce(event) {
    var form = event.target;
    if (form.isSent) { event.preventDefault(); return; }
    form.isSent = true;
    window.setTimeout(function () { form.isSent = false; }, TIMEOUT_MS);
  }

  /* By the way back the page may come as it was left, with its forms sent. */
  function allowAgain() {
    Array.prototype.forEach.call(document.forms, function (form) { form.isSent = false; });
  }

  document.addEventListener("submit", sendOnce);
  window.addEventListener("pageshow", allowAgain);
  document.addEventListener("keydown", function (event) {
    var tag = event.target.tagName, link;
    if (tag === "INPUT" || tag === "SELECT" || tag === "TEXTAREA" || event.ctrlKey || event.altKey || event.metaKey) { return; }
    link = /^[1-9]$/.test(event.key) && document.querySelector("[data-key='" + event.key + "']");
    if (link) { link.click(); }
  });

  (function start() {
    var image = document.querySelector("[data-live]"), place = document.querySelector("[data-panel]");
    var box = document.querySelector("[data-pad]");
    var before = document.querySelector("[data-back]");
    if (before) { wayBack(before); }
    if (image) { live(image); }
    if (place) { panel(place); }
    if (box) { pad(box, document.querySelectorAll("[data-pin]")); }
  }());
}());
