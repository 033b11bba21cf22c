// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include <segmed/core/json.hpp>
#include <segmed/experiment/chart.hpp>
#include <segmed/experiment/overlay.hpp>
#include <segmed/experiment/statistics.hpp>

namespace segmed {

/// Headings, tables, tiles and figures of a report's page.
class ReportPage {
 protected:
  // A number with a true minus sign.
  static std::string shown(double value, int decimals = 4, bool sign = false) {
    const std::string text = fixed(value, decimals, sign);
    if (text == "-") return "<span class=\"quiet\">–</span>";
    return text[0] == '-' ? "\xE2\x88\x92" + text.substr(1) : text;
  }
  static std::string tinted(double value, const std::string& text) {
    if (!(value > 0 || value < 0)) return text;
    return std::string("<span class=\"") + (value > 0 ? "up" : "down") + "\">" + text + "</span>";
  }
  static std::string p_phrase(double p) {
    const std::string text = escaped(p_text(p));
    return text[0] == '&' ? "p " + text : "p = " + text;
  }
  static std::string count(Index n, const char* one, const char* many) {
    return std::to_string(n) + " " + (n == 1 ? one : many);
  }
  static std::string swatch(Index label) {
    return "<i class=\"swatch\" style=\"background:" + css_color(class_color(label)) + "\"></i>";
  }
  void heading(const std::string& text, const std::string& lead = {}) {
    out_ += "<h2>" + escaped(text) + "</h2>\n";
    if (!lead.empty()) out_ += "<p class=\"quiet\">" + typeset(lead) + "</p>\n";
  }
  void tile(const std::string& value, const std::string& caption) {
    out_ += "<div class=\"tile\"><b>" + value + "</b><span>" + caption + "</span></div>\n";
  }
  void cell(const std::string& text) { out_ += "<td>" + text + "</td>"; }
  void open_table(const std::vector<std::string>& heads) {
    out_ += "<div class=\"wide\"><table><thead><tr>";
    for (const std::string& head : heads) out_ += "<th scope=\"col\">" + typeset(head) + "</th>";
    out_ += "</tr></thead><tbody>\n";
  }
  void close_table() { out_ += "</tbody></table></div>\n"; }
  void figure(const std::string& svg, const std::string& caption) {
    out_ += "<figure>" + svg + "<figcaption>" + typeset(caption) + "</figcaption></figure>\n";
  }
  /// A table of what stands in an object, and a folded one for each object in it.
  void manifest(const Json& all) {
    if (!all.is_object()) return;
    heading("Manifest");
    const auto row = [&](const std::string& name, const Json& value) {
      out_ += "<tr><th scope=\"row\">" + escaped(name) + "</th><td>" +
              escaped(value.is_string() ? value.as_string() : value.dump()) + "</td></tr>\n";
    };
    const auto table = [&](const Json& members, bool plain) {
      out_ += "<div class=\"wide manifest\"><table><tbody>\n";
      for (const auto& [name, value] : members.as_object())
        if (!plain || !value.is_object()) row(name, value);
      out_ += "</tbody></table></div>\n";
    };
    table(all, true);
    for (const auto& [name, value] : all.as_object())
      if (value.is_object()) {
        out_ += "<details><summary>" + escaped(name) + "</summary>";
        table(value, false);
        out_ += "</details>\n";
      }
  }

  std::string out_;
};

}  // namespace segmed
