// Attaches every behaviour. Pages work without any of it.
import { enhanceCharts } from "./chart.js";
import { enhanceCopy, enhanceCopyLinks, enhanceCopyTexts } from "./copy.js";
import { startBusy } from "./busy.js";
import { startComplete } from "./complete.js";
import { enhanceHistogram, startHistogram } from "./histogram.js";
import { enhanceTimes, tellZone, tickTimes } from "./time.js";
import { startKeys, keepPlace } from "./keys.js";
import { startMenus } from "./menu.js";
import { startRefresh } from "./refresh.js";
import { startTap } from "./tap.js";
import { startTyped } from "./typed.js";

/** Runs again over content that a refresh has replaced. */
function enhance() {
  enhanceTimes(document);
  enhanceCharts(document);
  enhanceCopy(document);
  enhanceCopyLinks(document);
  enhanceCopyTexts(document);
  enhanceHistogram();
  for (const el of document.querySelectorAll("[data-script]")) /** @type {HTMLElement} */ (el).hidden = false;
  keepPlace();
}

enhance();
tellZone();
startMenus();
startKeys();
startComplete();
startBusy();
startTap();
startTyped();
startRefresh(enhance);
startHistogram(enhance);
setInterval(tickTimes, 1000);
