// SPDX-License-Identifier: Apache-2.0
// What a comparison has found as tables for other programs, and in one sentence.
#pragma once
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <segmed/experiment/ranking.hpp>
#include <segmed/experiment/results.hpp>

namespace segmed {

/// A value of a CSV table, quoted where it must be.
inline std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == text.npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}
/// A number of a CSV table: empty where it is not defined.
inline std::string csv_number(double v) { return std::isnan(v) ? std::string() : number_text(v); }

/// One line per run, case and annotated class; empty where a score is not defined.
inline std::string to_csv(const Results& results) {
  std::string out = "policy,seed,d0,d1,minutes,steps,case,class,dice,hd95_mm,hide,warm_start\n";
  for (const RunResult& run : results.runs)
    for (const CaseResult& one : run.cases)
      for (std::size_t c = 0; c < results.classes.size() && c < one.dice.size(); ++c) {
        if (!one.annotated.has(Index(c) + 1)) continue;
        out += csv_field(run.policy);
        for (const double value :
             {double(run.seed), double(run.d0), double(run.d1), run.minutes, double(run.steps)})
          out += ',' + csv_number(value);
        out += ',' + csv_field(one.id) + ',' + csv_field(results.classes[c]) + ',' +
               csv_number(one.dice[c]) + ',' + csv_number(one.hd95[c]) + ',' + csv_field(run.hide) +
               ',' + (run.warm ? "1" : "0") + '\n';
      }
  return out;
}

/// The mean of a run's score over all runs of a policy at one size and one way of hiding.
inline double over_runs(const std::vector<const RunResult*>& runs,
                        double (RunResult::*score)() const) {
  DefinedMean mean;
  for (const RunResult* run : runs) mean.add((run->*score)());
  return mean.value();
}

/// One line per comparison.
inline std::string gains_csv(const Results& results, const std::string& baseline = "supervised") {
  std::string out =
      "policy,d0,d1,hide,hidden,seeds,dice_m0,dice_m1,gain,low,high,p_over_cases,hd95_mm_m0,"
      "hd95_mm_m1\n";
  for (const GainResult& gain : results.gains) {
    const auto after = results.runs_of(gain), before = results.partners_of(after, baseline);
    out += csv_field(gain.policy) + ',' + std::to_string(gain.d0) + ',' + std::to_string(gain.d1) +
           ',' + csv_field(gain.hide);
    for (const double value :
         {gain.hidden, double(gain.seeds.size()), over_runs(before, &RunResult::mean_dice),
          over_runs(after, &RunResult::mean_dice), gain.gain, gain.low, gain.high, gain.p,
          over_runs(before, &RunResult::mean_hd95), over_runs(after, &RunResult::mean_hd95)})
      out += ',' + csv_number(value);
    out += '\n';
  }
  return out;
}

/// "60", or "all" of what is of several sizes together.
inline std::string size_text(const GainResult& gain) {
  return gain.together ? "all" : std::to_string(gain.d1);
}
inline std::string hide_text(const GainResult& gain) { return gain.together ? "all" : gain.hide; }

/// One line per policy beside another.
inline std::string differences_csv(const Results& results) {
  std::string out = "policy,against,d0,d1,hide,seeds,difference,low,high,p_over_cases\n";
  for (const GainResult& gain : results.differences) {
    out += csv_field(gain.policy) + ',' + csv_field(gain.against) + ',' + std::to_string(gain.d0) +
           ',' + size_text(gain) + ',' + csv_field(hide_text(gain));
    for (const double value : {double(gain.seeds.size()), gain.gain, gain.low, gain.high, gain.p})
      out += ',' + csv_number(value);
    out += '\n';
  }
  return out;
}

/// The largest gain in one plain sentence; empty before there is one.
inline std::string reading(const Results& results) {
  const GainResult* gain = results.best();
  if (gain == nullptr) return {};
  const auto cases = [](Index n, const char* kind) {
    return std::to_string(n) + " " + kind + (n == 1 ? " case" : " cases");
  };
  const std::string with = "With " + cases(gain->d1, "further") +
                           (results.hides_differ() ? " (" + gain->hide + " hidden)" : "") + ", " +
                           gain->policy;
  const std::string alone = cases(gain->d0, "annotated") + " alone";
  const std::string p = p_text(gain->p);
  const std::string evidence = " (95 % interval " + fixed(gain->low, 4, true) + " to " +
                               fixed(gain->high, 4, true) + ", p " + (p[0] == '<' ? p : "= " + p) +
                               ").";
  const std::string size = fixed(std::abs(gain->gain), 4) + " Dice";
  if (gain->low > 0) return with + " gains " + size + " over " + alone + evidence;
  if (gain->high < 0) return with + " loses " + size + " against " + alone + evidence;
  return with + " makes no clear difference to " + alone + ": " + fixed(gain->gain, 4, true) +
         " Dice" + evidence;
}

/// Text as LaTeX sets it.
inline std::string tex_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("_&%$#{}").find(c) != std::string_view::npos) out += '\\';
    out += c == '\\' || c == '~' || c == '^' ? ' ' : c;
  }
  return out;
}

/// The last cells of a row.
inline std::string tex_interval(const GainResult& gain) {
  return "$" + fixed(gain.gain, 4, true) + "$ & $" + fixed(gain.low, 4, true) + "$ to $" +
         fixed(gain.high, 4, true) + "$ & $" + p_text(gain.p) + "$ \\\\\n";
}

/// The gains, differences between policies that were asked for, and the ranking where there is one,
/// as LaTeX tables of the package booktabs.
inline std::string to_tex(const Results& results, const std::string& baseline = "supervised") {
  const auto mean = [](const std::vector<const RunResult*>& runs) {
    return fixed(over_runs(runs, &RunResult::mean_dice), 4);
  };
  const bool hides = results.hides_differ();
  std::string out = "% \\usepackage{booktabs}\n";
  if (const std::string text = reading(results); !text.empty()) out += "% " + text + "\n";
  out += std::string("\\begin{tabular}{l") + (hides ? "l" : "") + "rrrrrrr}\n\\toprule\npolicy & " +
         (hides ? "hidden & " : "") +
         "$|D_0|$ & $|D_1|$ & $M_0$ & $M_1$ & gain & 95\\,\\% interval & $p$ \\\\\n\\midrule\n";
  for (const GainResult& gain : results.gains)
    out += tex_text(gain.policy) + " & " + (hides ? tex_text(gain.hide) + " & " : "") +
           std::to_string(gain.d0) + " & " + std::to_string(gain.d1) + " & " +
           mean(results.partners_of(results.runs_of(gain), baseline)) + " & " +
           mean(results.runs_of(gain)) + " & " + tex_interval(gain);
  out += "\\bottomrule\n\\end{tabular}\n";
  if (!results.differences.empty()) {
    out += std::string("\n\\begin{tabular}{ll") + (hides ? "l" : "") +
           "rrrr}\n\\toprule\npolicy & beside & " + (hides ? "hidden & " : "") +
           "$|D_1|$ & difference & 95\\,\\% interval & $p$ \\\\\n\\midrule\n";
    for (const GainResult& gain : results.differences)
      out += tex_text(gain.policy) + " & " + tex_text(gain.against) + " & " +
             (hides ? tex_text(hide_text(gain)) + " & " : "") + size_text(gain) + " & " +
             tex_interval(gain);
    out += "\\bottomrule\n\\end{tabular}\n";
  }
  const Ranking ranking = Ranking::of(results, baseline);
  if (ranking.policies.size() < 3) return out;
  out += "\n\\begin{tabular}{lr}\n\\toprule\npolicy & mean rank \\\\\n\\midrule\n";
  for (std::size_t k = 0; k < ranking.policies.size(); ++k)
    out += tex_text(ranking.policies[k]) + " & " + fixed(ranking.ranks[k], 2) + " \\\\\n";
  return out + "\\bottomrule\n\\end{tabular}\n";
}

/// Writes results.json, results.csv, gains.csv, table.tex and, where policies were compared with
/// each other, differences.csv into a folder, each whole or not at all.
inline void write_results(const std::string& folder, const Results& results) {
  write_text(folder + "/results.csv", to_csv(results));
  write_text(folder + "/gains.csv", gains_csv(results));
  if (!results.differences.empty())
    write_text(folder + "/differences.csv", differences_csv(results));
  write_text(folder + "/table.tex", to_tex(results));
  Json json = to_json(results);
  if (const std::string text = reading(results); !text.empty()) json["reading"] = text;
  write_text(folder + "/results.json", json.dump(1) + "\n");
}

}  // namespace segmed
