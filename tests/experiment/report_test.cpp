// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/experiment/chart.hpp>
#include <segmed/experiment/dot_chart.hpp>
#include <segmed/experiment/report.hpp>

using namespace segmed;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// What stands behind each `name="` in a tag that begins so, as numbers.
std::vector<double> numbers(const std::string& svg, const std::string& tag,
                            const std::string& name) {
  std::vector<double> all;
  for (auto at = svg.find(tag); at != svg.npos; at = svg.find(tag, at + 1))
    all.push_back(std::stod(svg.substr(svg.find(' ' + name + "=\"", at) + name.size() + 3)));
  return all;
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
  TEST_CASE("a logarithmic axis has ticks at 1, 2 and 5 of each decade, or at decades alone") {
    const Axis axis = Axis::decades(0.13, 1.9);
    CHECK(axis.low == doctest::Approx(0.1));
    CHECK(axis.high == doctest::Approx(2));
    REQUIRE(axis.ticks() == 5);
    const char* texts[] = {"0.1", "0.2", "0.5", "1", "2"};
    for (Index i = 0; i < 5; ++i) CHECK(axis.text(i) == texts[i]);
    CHECK(axis.place(0.1) == doctest::Approx(0));
    CHECK(axis.place(2) == doctest::Approx(1));
    CHECK(axis.place(std::sqrt(0.2)) == doctest::Approx(0.5));
    CHECK(Axis::decades(0.05, 20).text(0) == "0.05");
    CHECK(Axis::decades(0.05, 20).text(8) == "20");
    const Axis wide = Axis::decades(3e-5, 2);
    CHECK(wide.ticks() == 7);
    CHECK(wide.text(0) == "0.00001");
    CHECK(wide.text(6) == "10");
    for (double low = 1.3e-6; low < 1e6; low *= 3.7)
      for (double span = 1; span < 1e8; span *= 5.3) {
        const Axis some = Axis::decades(low, low * span);
        CHECK(some.low <= low * (1 + 1e-6));
        CHECK(some.high >= low * span * (1 - 1e-6));
        CHECK(some.ticks() >= 2);
        CHECK(some.ticks() <= 13);
      }
    LineChart chart{"t", "x", "loss", {{"", 1, {0, 1}, {0.1, 2}}}};
    chart.logarithmic = true;
    CHECK(has(to_svg(chart), ">0.5</text>"));
    chart.series[0].y[0] = 0;  // no logarithm has it
    CHECK(has(to_svg(chart), ">1.5</text>"));
    CHECK_FALSE(has(to_svg(chart), "nan"));
  }
  TEST_CASE("no axis crosses a row's label, however many rows and however long") {
    for (const std::string label : {"ict", "partial_completion", "uncertainty_aware_teacher"})
      for (const Index rows : {1, 3, 20}) {
        DotChart chart{"t", "x", {}};
        for (Index i = 0; i < rows; ++i)
          chart.rows.push_back({label, 1, 0.03, 0.001, 0.06, {0.03}, i == 1 ? "|D₁| = 14" : ""});
        const std::string svg = to_svg(chart);
        CHECK(balanced(svg));
        CHECK(count(svg, ">" + label + "</text>") == std::size_t(rows));
        for (const char* end : {"x1", "x2"})
          for (const double x : numbers(svg, "<line", end))
            CHECK(x >= SvgCanvas::letter * double(label.size()));
        CHECK(count(svg, "<circle") == std::size_t(rows));  // one seed is the mean itself
      }
    const std::string svg = to_svg(DotChart{"t", "x", {{std::string(90, 'a'), 1, 0.1}}});
    CHECK(has(svg, "aaa…</text>"));
    for (const double x : numbers(svg, "<line", "x1")) CHECK(x >= 230);
    CHECK(shortened("D₁D₁", 4) == "D₁D₁");
    CHECK(shortened("D₁D₁", 3) == "D₁…");
  }
  TEST_CASE("a row far beyond the others is an arrow with its number") {
    DotChart chart{"t", "x", {}};
    for (const double value : {0.01, -0.004, 0.006, 0.002})
      chart.rows.push_back({"a", 1, value, value - 0.002, value + 0.002});
    const auto bars = [](const std::string& svg) {
      const auto from = numbers(svg, "<line", "x1"), to = numbers(svg, "<line", "x2");
      return to.back() - from.back();
    };
    const std::string before = to_svg(chart);
    CHECK_FALSE(has(before, "<polygon"));
    chart.rows.insert(chart.rows.begin(), {"far", 1, -0.84, -0.85, -0.83});
    const std::string after = to_svg(chart);
    CHECK(count(after, "<polygon") == 1);
    CHECK(has(after, ">−0.8400</text>"));
    CHECK(count(after, "<circle") == 4);
    CHECK(bars(after) > 0.8 * bars(before));
    chart.rows.resize(3);  // too few to say which is the odd one
    CHECK_FALSE(has(to_svg(chart), "<polygon"));
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
  TEST_CASE("policies beside each other have a table and a chart, and mixed programs a sentence") {
    ReportInput input = example(0.03);
    CHECK_FALSE(has(report_html(input), "Beside "));
    for (Index seed = 0; seed < 3; ++seed)
      for (const Index d1 : {20, 60}) {
        input.results.runs.push_back(run("rdrop", seed, d1, 0.01));
        input.results.runs.back().made_by = seed == 0 ? "segmed <1>" : "segmed 2";
      }
    compare_runs(input.results);
    compare_with(input.results, "partial_completion");
    const std::string html = report_html(input);
    CHECK(balanced(html));
    CHECK(has(html, "<h2>Beside partial_completion</h2>"));
    CHECK(count(html, "<title>Difference in mean Dice to partial_completion</title>") == 1);
    CHECK(has(html, "<td>all</td>"));
    CHECK(has(html, "all together"));
    CHECK(has(html, "2 runs by segmed &lt;1&gt;; 4 runs by segmed 2."));
  }
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
  TEST_CASE("a page says which cases evaluate where it is not D_val") {
    ReportInput input = example(0.05);
    CHECK(has(report_html(input), "12 cases in D<sub>val</sub>"));
    input.evaluated = "the inner split";
    input.rules = {"D_val was put aside."};
    CHECK(has(report_html(input), "12 cases in the inner split"));
    CHECK(has(report_html(input), ">in the inner split</th>"));
    CHECK(has(report_html(input), "<li>D<sub>val</sub> was put aside.</li>"));
  }
  TEST_CASE("the headline says what the interval allows to say") {
    CHECK(has(report_html(example(0.05)), "With 60 further cases, partial_completion gains "));
    CHECK(has(report_html(example(0.05)), "over 10 annotated cases alone"));
    CHECK(has(report_html(example(0.05)), "p &lt; 0.001"));
    CHECK(has(report_html(example(-0.05)), "With 20 further cases, partial_completion loses "));
    CHECK(has(report_html(example(0)), "makes no clear difference to 10 annotated cases alone"));
  }
  TEST_CASE("M_0 stands beside a gain with the seeds that both have") {
    ReportInput input = example(0.05);
    for (const RunResult& one : std::vector<RunResult>(input.results.runs))
      if (one.seed == 2 && one.d1 == 60) {
        input.results.runs.push_back(one);
        input.results.runs.back().policy = "ict";
      }
    compare_runs(input.results);
    const GainResult& gain = input.results.gains.back();
    REQUIRE(gain.policy == "ict");
    const auto after = input.results.runs_of(gain), before = input.results.partners_of(after);
    REQUIRE(before.size() == 1);
    CHECK(before[0]->seed == 2);
    const double m0 = before[0]->mean_dice(), m1 = after[0]->mean_dice();
    CHECK(m1 - m0 == doctest::Approx(gain.gain));
    CHECK(has(report_html(input), "<td>1</td><td>" + fixed(m0, 4) + "</td><td>" + fixed(m1, 4)));
    CHECK(has(gains_csv(input.results), ",1," + number_text(m0) + ',' + number_text(m1) + ','));
  }
  TEST_CASE("a gain is colored where its interval leaves no doubt, the largest ones first") {
    ReportInput input = example(0.05);
    const auto runs = input.results.runs;
    for (int k = 0; k < 9; ++k)
      for (RunResult one : runs)
        if (one.d1 == 60) {
          one.policy = "policy_" + std::to_string(k);
          for (CaseResult& each : one.cases)
            each.dice[0] += k == 0 ? 0.001 * double(each.id.size() % 2) : 0.01 * double(k - 5);
          input.results.runs.push_back(one);
        }
    compare_runs(input.results);
    const std::string html = report_html(input);
    CHECK(balanced(html));
    CHECK(html.find(">policy_8</th>") < html.find(">partial_completion</th>"));
    std::set<std::string> colors;  // of the gain curve's legend: one for each of the six
    const std::string curve = html.substr(html.find("<title>Gain over the size of D"));
    for (auto at = curve.find("stroke-width=\"3.0\""); at < curve.find("</svg>");
         at = curve.find("stroke-width=\"3.0\"", at + 1)) {
      const auto from = curve.rfind("--series-", at);
      colors.insert(curve.substr(from, curve.find(',', from) - from));
    }
    CHECK(colors.size() == 6);
    const std::string none = report_html(example(0));
    CHECK_FALSE(has(none, "<b><span class"));
    CHECK(has(report_html(example(0.05)), "<b><span class=\"up\">"));
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
