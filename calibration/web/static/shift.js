/* The shift check follows the parts that are shown, ES5. Without it the page reloads by itself. */
(function () {
  "use strict";
  var EVERY_MS = 500;
  var place = document.getElementById("shift"), parts = document.getElementById("parts"), end = document.getElementById("end");
  var shown = "";

  function show(html) {
    if (html === shown) { return; }
    shown = html;
    parts.innerHTML = html;
    if (end) { end.disabled = !parts.querySelector("[data-done=yes]"); }
  }

  /* What was to be shown a while ago must not look as if it were now. */
  function lost() {
    shown = "";
    kenpin.lost(parts, place.getAttribute("data-lost"), "lost");
    if (end) { end.disabled = true; }
  }

  function load() {
    function next() { window.setTimeout(load, EVERY_MS); }
    kenpin.ask(place.getAttribute("data-parts"), function (html) { show(html); next(); }, function () {
      lost();
      next();
    }, [401, 404]);
  }
  window.setTimeout(load, EVERY_MS);
}());
