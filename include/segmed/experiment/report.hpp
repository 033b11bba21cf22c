// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/json.hpp>
#include <segmed/experiment/chart.hpp>
#include <segmed/experiment/png.hpp>
#include <segmed/experiment/report_gains.hpp>
#include <segmed/experiment/report_input.hpp>
#include <segmed/experiment/report_style.hpp>
#include <segmed/experiment/results.hpp>
#include <segmed/experiment/tables.hpp>
#include <segmed/train/metrics.hpp>

namespace segmed {

/// Builds the page part by part.
class Report : GainSections {
 public:
  explicit Report(const ReportInput& input) : GainSections(input) {}

  std::string html() {
    out_ =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
        "img-src data:; style-src 'unsafe-inline'\">\n<title>" +
        escaped(in_.title) + "</title>\n<style>" + report_style() +
        "</style></head>\n<body><main>\n";
    headline();
    gains();
    differences();
    ranking();
    per_class();
    examples();
    curves();
    runs();
    rules();
    manifest(in_.manifest);
    return out_ + "</main></body></html>\n";
  }

 private:
  static double class_mean(const std::vector<const RunResult*>& runs, std::size_t c) {
    DefinedMean mean;
    for (const RunResult* run : runs) mean.add(run->class_mean(&CaseResult::dice, c));
    return mean.value();
  }

  void headline() {
    const Results& results = in_.results;
    out_ += "<h1>" + typeset(in_.title) + "</h1>\n<p class=\"answer\">";
    if (best_ == nullptr && results.runs.empty()) {
      out_ += "No run is finished yet.</p>\n";
      return;
    }
    if (best_ == nullptr) {
      const RunResult& run = results.runs.back();
      out_ += escaped(run.policy) + " reaches a mean Dice of " + shown(run.mean_dice()) + " on " +
              count(Index(run.cases.size()), "case", "cases") + ".</p>\n";
      about();
      return;
    }
    const GainResult& gain = *best_;
    const std::string size = by_evidence(gain, shown(std::abs(gain.gain)) + " Dice");
    const std::string extra = count(gain.d1, "further case", "further cases") +
                              (hides_ ? " (" + escaped(gain.hide) + " hidden)" : "");
    const std::string policy = escaped(gain.policy);
    const std::string evidence = " (95 % interval " + shown(gain.low, 4, true) + " to " +
                                 shown(gain.high, 4, true) + ", " + p_phrase(gain.p) + ").";
    const std::string alone = count(gain.d0, "annotated case", "annotated cases") + " alone";
    if (gain.low > 0)
      out_ += "With " + extra + ", " + policy + " gains " + size + " over " + alone + evidence;
    else if (gain.high < 0)
      out_ += "With " + extra + ", " + policy + " loses " + size + " against " + alone + evidence;
    else
      out_ += "With " + extra + ", " + policy + " makes no clear difference to " + alone + ": " +
              shown(gain.gain, 4, true) + " Dice" + evidence;
    out_ += "</p>\n";
    about();
    const Index up =
        std::count_if(gain.seeds.begin(), gain.seeds.end(), [](double seed) { return seed > 0; });
    out_ += "<div class=\"tiles\">\n";
    tile(by_evidence(gain, shown(gain.gain, 4, true)), "gain in mean Dice");
    tile(shown(over_runs(before(gain), &RunResult::mean_dice)),
         "M<sub>0</sub>: " + escaped(in_.baseline) +
             ", |D<sub>0</sub>| = " + std::to_string(gain.d0));
    tile(shown(over_runs(in_.results.runs_of(gain), &RunResult::mean_dice)),
         "M<sub>1</sub>: " + policy + ", |D<sub>1</sub>| = " + std::to_string(gain.d1));
    tile(std::to_string(up) + " of " + std::to_string(gain.seeds.size()),
         gain.seeds.size() == 1 ? "seed gains" : "seeds gain");
    out_ += "</div>\n";
  }

  void about() {
    std::string text;
    const auto add = [&](const std::string& part) {
      if (!part.empty()) text += (text.empty() ? "" : " · ") + typeset(part);
    };
    add(in_.data);
    if (!in_.results.runs.empty())
      add(count(Index(in_.results.runs[0].cases.size()), "case", "cases") + " in " + in_.evaluated);
    add(in_.hiding);
    if (in_.results.gains.size() > 1)
      add("the largest of " + std::to_string(in_.results.gains.size()) + " comparisons");
    add(in_.created);
    out_ += "<p class=\"quiet\">" + text + "</p>\n";
  }

  void per_class() {
    if (in_.results.runs.empty()) return;
    const RunResult& last = in_.results.runs.back();
    const Index d0 = best_ != nullptr ? best_->d0 : last.d0;
    const bool known = in_.uses.size() == in_.results.classes.size();
    heading(
        "Dice of each class",
        "Mean over the cases of " + in_.evaluated +
            " in which the class is annotated and is present or "
            "predicted, then over seeds" +
            std::string(known ? "; beside it how many cases annotate it, for the first seed" : "") +
            (best_ != nullptr && in_.results.gains.size() > 1
                 ? ". |D_1| = " + std::to_string(best_->d1) +
                       (hides_ ? ", " + best_->hide + " hidden." : ".")
                 : "."));
    std::vector<std::pair<std::string, std::vector<const RunResult*>>> columns;
    for (const GainResult& gain : in_.results.gains)  // of every policy, as in the headline
      if (gain.d0 == d0 && gain.d1 == best_->d1 && gain.hide == best_->hide)
        columns.emplace_back(gain.policy, in_.results.runs_of(gain));
    const auto leads = leading(2);  // more do not fit a page
    const std::size_t all = columns.size();
    columns.erase(std::remove_if(columns.begin(), columns.end(),
                                 [&](const auto& column) {
                                   return place(leads, column.first) == leads.size();
                                 }),
                  columns.end());
    if (columns.size() < all)
      out_ += "<p class=\"quiet\">The policies with the largest gains; results.csv has all.</p>\n";
    if (best_ == nullptr)
      columns.emplace_back(last.policy, in_.results.runs_of(last.policy, d0, last.d1, last.hide));
    std::vector<std::string> heads = {"Class"};
    if (known) heads.insert(heads.end(), {"in D_0", "in D_1", "in " + in_.evaluated});
    if (best_ != nullptr) heads.push_back("M_0 " + in_.baseline);
    for (const auto& [policy, made] : columns) {
      heads.push_back((best_ != nullptr ? "M_1 " : "") + policy);
      if (best_ != nullptr) heads.push_back("Gain");
    }
    open_table(heads);
    for (std::size_t c = 0; c < in_.results.classes.size(); ++c) {
      out_ += "<tr><th scope=\"row\">" + swatch(Index(c) + 1) + escaped(in_.results.classes[c]) +
              "</th>";
      if (known)
        for (const Index n : {in_.uses[c].d0, in_.uses[c].d1, in_.uses[c].validation})
          cell(std::to_string(n));
      if (best_ != nullptr) cell(shown(class_mean(in_.results.runs_of(in_.baseline, d0, 0), c)));
      for (const auto& [policy, made] : columns) {
        const double m1 = class_mean(made, c);
        cell(shown(m1));
        if (best_ == nullptr) continue;
        const double gain = m1 - class_mean(in_.results.partners_of(made, in_.baseline), c);
        cell(tinted(gain, shown(gain, 4, true)));
      }
      out_ += "</tr>\n";
    }
    close_table();
  }

  void examples() {
    if (in_.cases.empty()) return;
    heading("Best, median and worst case",
            "Ranked by the Dice of M_1. The axial slice in which the truth shows most, patient's "
            "right on the left.");
    for (const ShownCase& one : in_.cases) {
      out_ += "<figure class=\"case\"><h3>" + escaped(one.rank) + " <span>" + escaped(one.id);
      if (!std::isnan(one.before)) out_ += " · M<sub>0</sub> " + shown(one.before, 3);
      if (!std::isnan(one.after))
        out_ += std::string(" · ") + (best_ != nullptr ? "M<sub>1</sub> " : "Dice ") +
                shown(one.after, 3);
      out_ += "</span></h3><div class=\"panels\" style=\"--panels:" +
              std::to_string(std::max<std::size_t>(1, one.panels.size())) + "\">";
      for (const auto& [caption, picture] : one.panels)
        out_ += "<div><img alt=\"" + escaped(one.id + ": " + caption) + "\" width=\"" +
                std::to_string(picture.width) + "\" height=\"" + std::to_string(picture.height) +
                "\" src=\"" + data_uri(picture) + "\">" + typeset(caption) + "</div>";
      out_ += "</div><div class=\"legend\">";
      for (const Index label : one.classes)
        if (label >= 1 && label <= Index(in_.results.classes.size()))
          out_ += "<span>" + swatch(label) + escaped(in_.results.classes[std::size_t(label) - 1]) +
                  "</span>";
      out_ += "</div></figure>\n";
    }
  }

  void curves() {
    if (in_.curves.empty()) return;
    heading("Training", "The labels' loss, on a logarithmic axis. Each line is one run.");
    const bool many = policies_.size() > 3;
    out_ += std::string("<div class=\"charts") + (many ? " small" : "") + "\">\n";
    const auto draw = [&](const std::string& policy) {
      LineChart chart{"Loss of " + policy, "minutes of training", "loss", {}};
      if (many) chart.width = 300, chart.height = 210;
      chart.logarithmic = true;
      for (const TrainingCurve& curve : in_.curves)
        if (curve.policy == policy)
          chart.series.push_back({"", color(policy), curve.minutes, curve.loss});
      if (!chart.series.empty()) figure(to_svg(chart), chart.title);
    };
    draw(in_.baseline);
    for (const std::string& policy : policies_) draw(policy);
    out_ += "</div>\n";
  }

  void runs() {
    if (in_.results.runs.empty()) return;
    heading("Every run");
    std::vector<std::string> heads = {"Policy", "Seed", "|D_0|", "|D_1|"};
    if (hides_) heads.push_back("Hidden");
    for (const char* head : {"Minutes", "Steps", "Dice", "HD95, mm", "Gain"}) heads.push_back(head);
    open_table(heads);
    for (const RunResult& run : in_.results.runs) {
      const RunResult* partner =
          run.d1 > 0 ? in_.results.find(in_.baseline, run.seed, run.d0, 0) : nullptr;
      out_ += "<tr><th scope=\"row\">" + escaped(run.policy) + "</th>";
      for (const Index n : {run.seed, run.d0, run.d1}) cell(std::to_string(n));
      if (hides_) cell(escaped(run.hide));
      cell(shown(run.minutes, 2));
      cell(std::to_string(run.steps));
      cell(shown(run.mean_dice()));
      cell(shown(run.mean_hd95(), 2));
      const double gain = partner != nullptr ? run.mean_dice() - partner->mean_dice() : undefined;
      cell(shown(gain, 4, true));
      out_ += "</tr>\n";
    }
    close_table();
  }

  void rules() {
    heading("What the numbers mean");
    std::vector<std::string> all = rules_of(best_ != nullptr);
    all.insert(all.end(), in_.rules.begin(), in_.rules.end());
    if (const std::string mixed = mixture(in_.results); !mixed.empty()) all.push_back(mixed);
    out_ += "<ul>\n";
    for (const std::string& rule : all) out_ += "<li>" + typeset(rule) + "</li>\n";
    out_ += "</ul>\n";
    if (in_.command.empty()) return;
    out_ += "<h3>The command</h3>\n<pre><code>" + escaped(in_.command) + "</code></pre>\n";
  }
};

/// The report as one HTML page that loads nothing from elsewhere.
inline std::string report_html(const ReportInput& input) { return Report(input).html(); }

/// Writes the page, whole or not at all.
///
///   throws   FileError when a folder or the space for it is missing
inline void write_report(const std::string& path, const ReportInput& input) {
  write_text(path, report_html(input));
}

}  // namespace segmed
