// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/experiment/chart.hpp>
#include <segmed/experiment/report.hpp>

using namespace segmed;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Every tag that is opened is closed, in order.
bool balanced(const std::string& html) {
  std::vector<std::string> open;
  for (auto at = html.find('<'); at != html.npos; at = html.find('<', at + 1)) {
    const auto end = html.find('>', at);
    if (end == html.npos) return false;
    std::string tag = html.substr(at + 1, end - at - 1);
    if (tag[0] == '!' || tag.back() == '/') continue;
    const bool closes = tag[0] == '/';
    if (closes) tag.erase(0, 1);
    const std::string name = tag.substr(0, tag.find_first_of(" \n"));
    if (name == "meta" || name == "img") continue;
    if (!closes) {
      open.push_back(name);
    } else {
      if (open.empty() || open.back() != name) return false;
      open.pop_back();
    }
  }
  return open.empty();
}

RunResult run(const std::string& policy, Index seed, Index d1, double better) {
  RunResult made{policy, seed, 10, d1, 2.0, 240, {}};
  for (Index k = 0; k < 12; ++k)
    made.cases.push_back(
        {"case_" + std::to_string(k),
         AnnotatedSet::all(3),
         {0.7 + 0.01 * double((k * 5 + seed) % 7) + better, k == 3 ? undefined : 0.6},
         {2.5, undefined}});
  return made;
}
ReportInput example(double better) {
  ReportInput input;
  input.title = "<b>title</b>";
  input.command = "experiments gain --data \"a&b\"";
  input.results.classes = {"liver", "<spleen>"};
  for (Index seed = 0; seed < 3; ++seed) {
    input.results.runs.push_back(run("supervised", seed, 0, 0));
    for (const Index d1 : {20, 60})
      input.results.runs.push_back(run("partial_completion", seed, d1,
                                       better * double(d1) / 60 * (1 + 0.01 * double(seed))));
    input.curves.push_back({"supervised", seed, 0, {0, 1, 2}, {1, 0.5, undefined}});
  }
  compare_runs(input.results);
  input.uses = {{10, 33, 12}, {10, 27, 12}};
  input.cases.push_back(
      {"Best", "case_1", 0.7, 0.8, {{"truth", Picture(4, 4)}, {"M_1", Picture(4, 4)}}, {1, 2}});
  input.manifest["version"] = "0.1.0";
  input.manifest["options"]["note"] = "</script><script>alert(1)</script>";
  return input;
}

}  // namespace

TEST_SUITE("experiment/chart") {
  TEST_CASE("axes have round ticks that hold all values") {
    const Axis axis = Axis::over(0.013, 0.0871, 5);
    CHECK(axis.low == doctest::Approx(0));
    CHECK(axis.high == doctest::Approx(0.1));
    CHECK(axis.text(0) == "0.00");
    CHECK(axis.text(axis.ticks() - 1) == "0.10");
    CHECK(Axis::over(-3, 12, 5).text(0) ==
          "\xE2\x88\x92"
          "5");
    CHECK(Axis::over(5, 5, 5).low < 5);
    CHECK(Axis::over(5, 5, 5).high > 5);
    CHECK(Axis::over(0, 0, 5).high > 0);
    CHECK(Axis::over(INFINITY, -INFINITY, 5).high == 1);
    for (double low = -7.3; low < 8; low += 1.7)
      for (double span = 1e-6; span < 1e6; span *= 7.7) {
        const Axis some = Axis::over(low, low + span, 5);
        CHECK(some.low <= low + span * 1e-6);
        CHECK(some.high >= low + span * (1 - 1e-6));
        CHECK(some.ticks() >= 2);
        CHECK(some.ticks() <= 12);
      }
  }
  TEST_CASE("a chart is well-formed, with one place in the legend per name and gaps for NaN") {
    LineChart chart{"a < b", "x", "y", {}};
    chart.series.push_back({"one", 1, {0, 1, 2, 3}, {1, 2, undefined, 3}});
    chart.series.push_back({"one", 1, {0, 1}, {1, 2}});
    chart.series.push_back({"two", 2, {0, 1}, {1, 2}, {0, 1}, {2, 3}, true});
    const std::string svg = to_svg(chart);
    CHECK(balanced(svg));
    CHECK(has(svg, "<title>a &lt; b</title>"));
    CHECK(count(svg, ">one</text>") == 1);
    CHECK(count(svg, "<polyline") == 4);
    CHECK(count(svg, "<polygon") == 1);
    CHECK(count(svg, "<circle") == 2);
    CHECK_FALSE(has(svg, "nan"));
    CHECK_FALSE(has(svg, "inf"));
    CHECK(balanced(to_svg(LineChart{})));
    CHECK(balanced(to_svg(DotChart{})));
    const std::string dots =
        to_svg(DotChart{"t", "x", {{"a", 1, 0.1, undefined, 0.2, {0.1, undefined}}}});
    CHECK(count(dots, "<circle") == 2);
    CHECK_FALSE(has(dots, "nan"));
  }
  TEST_CASE("a long curve is thinned to means of neighbors") {
    Series series{"", 1, {}, {}};
    for (int i = 0; i < 1000; ++i) series.x.push_back(i), series.y.push_back(i % 5);
    const Series thin = thinned(series);
    CHECK(thin.x.size() == 200);
    CHECK(thin.x[0] == 2);
    CHECK(thin.y[7] == 2);
  }
  TEST_CASE("text is escaped") {
    CHECK(escaped("<a href=\"x\">'&\x01\xFF\xC3\xA9") ==
          "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\xEF\xBF\xBD\xC3\xA9");
    CHECK(typeset("M_1 < M_0 on D_val") == "M<sub>1</sub> &lt; M<sub>0</sub> on D<sub>val</sub>");
  }
}

TEST_SUITE("experiment/report") {
  TEST_CASE("a page loads nothing from elsewhere and is well-formed") {
    const std::string html = report_html(example(0.05));
    CHECK(balanced(html));
    CHECK(has(html, "default-src 'none'"));
    CHECK_FALSE(has(html, "<script"));
    CHECK_FALSE(has(html, "src=\"http"));
    CHECK_FALSE(has(html, "url("));
    CHECK_FALSE(has(html, "<link"));
    CHECK_FALSE(has(html, "nan"));
    CHECK(has(html, "&lt;b&gt;title&lt;/b&gt;"));
    CHECK(has(html, "&lt;spleen&gt;"));
    CHECK(has(html, "--data &quot;a&amp;b&quot;"));
    CHECK(has(html, "data:image/png;base64,"));
  }
  TEST_CASE("the headline says what the interval allows to say") {
    CHECK(has(report_html(example(0.05)), "With 60 further cases, partial_completion gains "));
    CHECK(has(report_html(example(0.05)), "over 10 annotated cases alone"));
    CHECK(has(report_html(example(0.05)), "p &lt; 0.001"));
    CHECK(has(report_html(example(-0.05)), "With 20 further cases, partial_completion loses "));
    CHECK(has(report_html(example(0)), "makes no clear difference to 10 annotated cases alone"));
  }
  TEST_CASE("a sweep has a gain curve, one size has none") {
    CHECK(has(report_html(example(0.05)), "Gain over the size of D"));
    ReportInput one = example(0.05);
    std::vector<RunResult> kept;
    for (const RunResult& each : one.results.runs)
      if (each.d1 != 20) kept.push_back(each);
    one.results.runs = kept;
    compare_runs(one.results);
    CHECK_FALSE(has(report_html(one), "Gain over the size of D"));
  }
  TEST_CASE("several ways of hiding have a column and a curve, three policies a ranking") {
    ReportInput input = example(0.05);
    CHECK_FALSE(has(report_html(input), "Hidden</th>"));
    CHECK_FALSE(has(report_html(input), "<h2>Ranking</h2>"));
    CHECK(has(report_html(input), "both of a seed began with the same weights"));
    const auto runs = input.results.runs;
    for (RunResult one : runs) {
      if (one.d1 == 0) continue;
      one.hide = "everything", one.hidden = 1, one.warm = true;
      one.policy = "mean_teacher";
      input.results.runs.push_back(one);
      one.policy = "partial_completion";
      input.results.runs.push_back(one);
    }
    for (RunResult& one : input.results.runs)
      if (one.d1 > 0 && one.hide.empty()) one.hide = "classes:1", one.hidden = 0.5;
    compare_runs(input.results);
    const std::string html = report_html(input);
    CHECK(balanced(html));
    CHECK(has(html, "Hidden</th>"));
    CHECK(has(html, "classes:1 (50 %)"));
    CHECK(has(html, "Gain over what is hidden"));
    CHECK(has(html, "began with the final weights of the M"));
    for (RunResult one : runs)
      if (one.d1 > 0) {
        one.policy = "mean_teacher", one.hide = "classes:1", one.hidden = 0.5;
        input.results.runs.push_back(one);
      }
    compare_runs(input.results);
    CHECK(has(report_html(input), "<h2>Ranking</h2>"));
    CHECK(balanced(report_html(input)));
  }
  TEST_CASE("a page without a comparison, and one without a run, can be read") {
    ReportInput input;
    CHECK(balanced(report_html(input)));
    CHECK(has(report_html(input), "No run is finished yet."));
    input.results.classes = {"liver"};
    input.results.runs.push_back(
        {"mean_teacher", 1, 10, 60, 2, 100, {{"a", AnnotatedSet::all(2), {0.5}, {1}}}});
    const std::string html = report_html(input);
    CHECK(has(html, "mean_teacher reaches a mean Dice of 0.5000 on 1 case."));
    CHECK(balanced(html));
  }
  TEST_CASE("best, median and worst are ranked by mean Dice") {
    RunResult some{"p", 0, 1, 0, 1, 1, {}};
    for (const double dice : {0.5, undefined, 0.9, 0.7, 0.6})
      some.cases.push_back({"c", AnnotatedSet::all(2), {dice}, {}});
    const RankedCases ranked = RankedCases::of(some);
    CHECK(ranked.best == 2);
    CHECK(ranked.median == 3);
    CHECK(ranked.worst == 0);
    CHECK_THROWS_WITH_AS(RankedCases::of({"p", 0, 1, 0, 1, 1, {}}),
                         "segmed: report: no case of p has a score", DataError);
  }
}
