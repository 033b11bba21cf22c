// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/experiment/chart.hpp>
#include <segmed/experiment/comparison.hpp>
#include <segmed/experiment/dot_chart.hpp>
#include <segmed/experiment/report_input.hpp>
#include <segmed/experiment/report_page.hpp>
#include <segmed/experiment/results.hpp>
#include <segmed/experiment/tables.hpp>

namespace segmed {

/// What a report's page says of the gains, policy by policy.
class GainSections : protected ReportPage {
 protected:
  explicit GainSections(const ReportInput& input)
      : in_(input), best_(input.results.best()), hides_(input.results.hides_differ()) {
    for (const RunResult& run : in_.results.runs)
      if (run.policy != in_.baseline && place(policies_, run.policy) == policies_.size())
        policies_.push_back(run.policy);
    std::vector<const GainResult*> order;
    for (const GainResult& gain : in_.results.gains) order.push_back(&gain);
    std::stable_sort(order.begin(), order.end(), [](const GainResult* a, const GainResult* b) {
      return Results::leads(*a, *b);
    });
    for (const GainResult* gain : order)
      if (place(by_gain_, gain->policy) == by_gain_.size()) by_gain_.push_back(gain->policy);
  }

  static std::size_t place(const std::vector<std::string>& names, const std::string& name) {
    return std::size_t(std::find(names.begin(), names.end(), name) - names.begin());
  }
  /// A color of its own for every policy, or for those with the largest gains; the others are gray
  /// as the baseline is.
  int color(const std::string& policy) const {
    if (policy == in_.baseline) return 0;
    const std::size_t at = place(policies_.size() > colors ? by_gain_ : policies_, policy);
    return at < colors ? int(at) + 1 : 0;
  }
  /// The policies with the largest gains.
  std::vector<std::string> leading(std::size_t most) const {
    return {by_gain_.begin(), by_gain_.begin() + Index(std::min(most, by_gain_.size()))};
  }
  /// All gains, the policies with the largest ones first.
  std::vector<const GainResult*> in_order() const {
    std::vector<const GainResult*> order;
    for (const GainResult& gain : in_.results.gains) order.push_back(&gain);
    std::stable_sort(order.begin(), order.end(), [&](const GainResult* a, const GainResult* b) {
      return place(by_gain_, a->policy) < place(by_gain_, b->policy);
    });
    return order;
  }
  /// The runs of M_0 that a gain was counted from.
  std::vector<const RunResult*> before(const GainResult& gain) const {
    return in_.results.partners_of(in_.results.runs_of(gain), in_.baseline);
  }
  /// Colored where the interval leaves no doubt of the sign.
  static std::string by_evidence(const GainResult& gain, const std::string& text) {
    return gain.low > 0 || gain.high < 0 ? tinted(gain.gain, text) : text;
  }

  void gains() {
    const auto& all = in_.results.gains;
    if (all.empty()) return;
    heading("Gain of each policy",
            std::string("M_1 saw D_0 and D_1, M_0 only D_0; ") +
                (warm() ? "M_1 began with the final weights of the M_0 of its seed, so that it was "
                          "trained for both budgets; both saw"
                        : "both of a seed began with the same weights, if not with another "
                          "network that a policy asks for, and saw") +
                " the same stream of D_0.");
    std::vector<std::string> heads = {"Policy", "|D_0|", "|D_1|"};
    if (hides_) heads.push_back("Hidden");
    for (const char* head : {"Seeds", "Dice of M_0", "Dice of M_1", "Gain", "95 % interval",
                             "p over cases", "HD95, mm"})
      heads.push_back(head);
    open_table(heads);
    const auto order = in_order();
    for (const GainResult* one : order) {
      const GainResult& gain = *one;
      out_ += "<tr><th scope=\"row\">" + escaped(gain.policy) + "</th>";
      cell(std::to_string(gain.d0));
      cell(std::to_string(gain.d1));
      if (hides_) cell(hiding(gain));
      cell(std::to_string(gain.seeds.size()));
      const auto m0 = before(gain), m1 = in_.results.runs_of(gain);
      cell(shown(over_runs(m0, &RunResult::mean_dice)));
      cell(shown(over_runs(m1, &RunResult::mean_dice)));
      cell("<b>" + by_evidence(gain, shown(gain.gain, 4, true)) + "</b>");
      cell(shown(gain.low, 4, true) + " to " + shown(gain.high, 4, true));
      cell(escaped(p_text(gain.p)));
      cell(shown(over_runs(m0, &RunResult::mean_hd95), 1) + " → " +
           shown(over_runs(m1, &RunResult::mean_hd95), 1));
      out_ += "</tr>\n";
    }
    close_table();
    out_ += "<div class=\"charts\">\n";
    DotChart dots{"Gain in mean Dice", "gain in mean Dice", {}};
    bool alike = true, seeds = false;  // what all rows have in common is said once
    for (const GainResult* gain : order) {
      dots.rows.push_back({gain->policy, color(gain->policy), gain->gain, gain->low, gain->high,
                           gain->seeds, setting(*gain)});
      alike = alike && setting(*gain) == setting(*order[0]);
      seeds = seeds || gain->seeds.size() > 1;
    }
    if (alike)
      for (DotRow& row : dots.rows) row.note.clear();
    const DotSpan span = DotSpan::of(dots);
    const bool beyond = std::any_of(order.begin(), order.end(), [&](const GainResult* gain) {
      return gain->gain < span.low || gain->gain > span.high;
    });
    figure(to_svg(dots),
           (alike ? setting(*order[0]) + ". " : std::string()) +
               (seeds ? "Large dot: mean over seeds. Bar: 95 % interval. Small dots: each seed."
                      : "Dot: the gain. Bar: 95 % interval.") +
               (beyond ? " Arrow: beyond the axis." : ""));
    gain_curve("Gain over the size of D₁", "cases in D₁",
               "Gain over |D_1| at |D_0| = " + std::to_string(best_->d0) +
                   (hides_ ? ", " + best_->hide + " hidden." : "."),
               true, [&](const GainResult& gain) {
                 return gain.hide == best_->hide ? double(gain.d1) : undefined;
               });
    if (hides_)
      gain_curve("Gain over what is hidden of D₁", "hidden annotations of D₁, %",
                 "Gain over the part of D_1's annotations that is hidden, at |D_1| = " +
                     std::to_string(best_->d1) + ".",
                 false, [&](const GainResult& gain) {
                   return gain.d1 == best_->d1 ? 100 * gain.hidden : undefined;
                 });
    out_ += "</div>\n";
  }
  /// Policies beside each other, where that was asked for.
  void differences() {
    for (const std::string& other : compared_with(in_.results)) {
      heading("Beside " + other,
              "Each policy's M_1 and the M_1 of " + other +
                  ", of the same seed, the same D_0 and the same labels of D_1.");
      std::vector<std::string> heads = {"Policy", "|D_0|", "|D_1|"};
      if (hides_) heads.push_back("Hidden");
      for (const char* head : {"Seeds", "Difference", "95 % interval", "p over cases"})
        heads.push_back(head);
      open_table(heads);
      DotChart dots{"Difference in mean Dice to " + other, "difference in mean Dice", {}};
      for (const GainResult& gain : in_.results.differences) {
        if (gain.against != other) continue;
        out_ += "<tr><th scope=\"row\">" + escaped(gain.policy) + "</th>";
        cell(std::to_string(gain.d0));
        cell(size_text(gain));
        if (hides_) cell(gain.together ? "all" : hiding(gain));
        cell(std::to_string(gain.seeds.size()));
        cell("<b>" + by_evidence(gain, shown(gain.gain, 4, true)) + "</b>");
        cell(shown(gain.low, 4, true) + " to " + shown(gain.high, 4, true));
        cell(escaped(p_text(gain.p)));
        out_ += "</tr>\n";
        dots.rows.push_back({gain.policy, color(gain.policy), gain.gain, gain.low, gain.high,
                             gain.seeds, setting(gain)});
      }
      close_table();
      figure(to_svg(dots),
             "Large dot: mean over seeds. Bar: 95 % interval. Small dots: each seed.");
    }
  }
  /// The size of D_1, and what is hidden of it where that differs.
  std::string setting(const GainResult& gain) const {
    if (gain.together) return "all together";
    return "|D₁| = " + std::to_string(gain.d1) + (hides_ ? ", " + gain.hide + " hidden" : "");
  }
  bool warm() const {
    return std::any_of(in_.results.runs.begin(), in_.results.runs.end(),
                       [](const RunResult& run) { return run.warm; });
  }
  static std::string hiding(const GainResult& gain) {
    const bool partly = gain.hidden > 0 && gain.hidden < 1;
    return escaped(gain.hide) + (partly ? " (" + fixed(100 * gain.hidden, 0) + " %)" : "");
  }

  /// The gains of each policy over `x` of them, where it has two values or more.
  template <class X>
  void gain_curve(const std::string& title, const std::string& x_label, const std::string& caption,
                  bool from_zero, const X& x) {
    LineChart chart{title, x_label, "gain in mean Dice", {}, true};
    bool swept = false;
    const auto leads = leading(colors);
    for (const std::string& policy : leads) {
      std::vector<const GainResult*> found;
      for (const GainResult& gain : in_.results.gains)
        if (gain.policy == policy && gain.d0 == best_->d0 && !std::isnan(x(gain)))
          found.push_back(&gain);
      std::sort(found.begin(), found.end(),
                [&](const GainResult* a, const GainResult* b) { return x(*a) < x(*b); });
      swept = swept || found.size() > 1;
      Series series{policy, color(policy), {}, {}, {}, {}, true};
      if (from_zero)  // without D_1 there is no gain
        series.x = series.y = series.low = series.high = {0};
      for (const GainResult* gain : found) {
        series.x.push_back(x(*gain)), series.y.push_back(gain->gain);
        series.low.push_back(gain->low), series.high.push_back(gain->high);
      }
      if (!found.empty()) chart.series.push_back(std::move(series));
    }
    if (swept)
      figure(to_svg(chart), caption + " Band: 95 % interval." +
                                (leads.size() < policies_.size() ? " The six best policies." : ""));
  }

  void ranking() {
    const Ranking ranks = Ranking::of(in_.results, in_.baseline);
    if (ranks.policies.size() < 3) return;
    heading("Ranking",
            "Mean rank by Dice over " + count(ranks.blocks, "score", "scores") + " of " +
                count(ranks.cases, "case", "cases") +
                " (seeds, sizes of D_1 and ways of hiding that all policies have finished); 1 is "
                "best.");
    out_ += "<div class=\"pair\">\n";
    open_table({"Policy", "Mean rank"});
    DotChart chart{"Mean rank", "mean rank", {}, false};
    for (std::size_t k = 0; k < ranks.policies.size(); ++k) {
      const std::string& policy = ranks.policies[k];
      const bool m0 = policy == in_.baseline;
      const double rank = ranks.ranks[k], half = ranks.difference / 2;
      out_ += "<tr><th scope=\"row\">" + escaped(policy) + (m0 ? " (M<sub>0</sub>)" : "") + "</th>";
      cell(shown(rank, 2));
      out_ += "</tr>\n";
      chart.rows.push_back({policy + (m0 ? " (M₀)" : ""), color(policy), rank,
                            std::max(1.0, rank - half),
                            std::min(double(ranks.policies.size()), rank + half)});
    }
    close_table();
    figure(to_svg(chart),
           "Dot: mean rank. Two whose bars do not overlap are told apart (Nemenyi, 5 %).");
    out_ += "</div>\n";
    out_ += "<p class=\"quiet\">That all are alike: " + p_phrase(ranks.p) +
            " (Friedman). Mean ranks closer than " + shown(ranks.difference, 2) +
            " are not told apart (Nemenyi, 5 %). Both count a case once, and take the "
            "trainings as they are.</p>\n";
  }

  static constexpr std::size_t colors = 6;  // of the style sheet's series
  const ReportInput& in_;
  const GainResult* best_;             // the comparison in the headline
  bool hides_;                         // D_1's labels were hidden in several ways
  std::vector<std::string> policies_;  // all but the baseline, in order of their runs
  std::vector<std::string> by_gain_;   // those that have a gain, the largest first
};

}  // namespace segmed
