/* Keys of the review bench, ES5: O = good, N = bad, M = keep as a master, arrow to the right = the next part. */
(function () {
  "use strict";
  document.addEventListener("keydown", function (event) {
    var tag = event.target.tagName, field = tag === "INPUT" && event.target.type !== "checkbox", key, target;
    if (field || tag === "SELECT" || tag === "TEXTAREA" || event.repeat || event.ctrlKey || event.altKey || event.metaKey) { return; }
    key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    target = /^([onm]|ArrowRight)$/.test(key) && document.querySelector("[data-letter='" + key + "']");
    if (target) { target.click(); }
  });
}());
