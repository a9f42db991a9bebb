// What `make report` builds; scripts/report sets the variables.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const { ALLURE_RESULTS, ALLURE_REPORT, ALLURE_HISTORY, ALLURE_SINGLE, ALLURE_TITLE } = process.env;
const categories = join(ALLURE_RESULTS, "categories.json");

export default {
  name: ALLURE_TITLE,
  output: ALLURE_REPORT,
  historyPath: ALLURE_HISTORY,
  historyLimit: 20,
  hideLabels: ["framework", "language", "package"],
  // Allure 3 takes categories from here, and no more from the results.
  categories: existsSync(categories) ? JSON.parse(readFileSync(categories, "utf8")) : undefined,
  plugins: {
    awesome: {
      options: {
        singleFile: Boolean(ALLURE_SINGLE),
        groupBy: ["parentSuite", "suite", "subSuite"],
        // Also what ran for less than a millisecond has its place in the timeline.
        timeline: { minDuration: 0 },
      },
    },
  },
};
