// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/data/example.hpp>
#include <segmed/data/plan.hpp>

namespace experiments {

/// All that decides what is trained and how, beside the data: chosen from the data, printed, saved
/// in every checkpoint, and overridden by options of the command line.
struct Recipe {
  segmed::Plan plan;
  segmed::ClassTable classes;
  std::string network = "residual_unet";  // or unet
  std::string loss = "dice_ce";           // or dice, cross_entropy
  std::string optimizer = "adamw";        // or sgd
  float rate = 1e-2f;
  float average = 0.99f;  // of the weights that predictions are made with; 0: the last ones
  bool deep_supervision = false;
  bool recompute = false;  // time for memory; the same bits, so that no checkpoint says it
  std::string flip = "";   // axes along which training patches are mirrored, such as xz
  float elastic = 0, blur = 0, low_resolution = 0;  // chances that a training patch is so changed
  bool balance_sources = false;  // small sources of D_1 are drawn more often; see RunOptions

  /// Networks are 2-D where patches are one slice thick.
  bool flat() const { return plan.patch[2] == 1; }
  std::string text() const {
    return plan.text() + ", network " + network + ", loss " + loss + ", optimizer " + optimizer +
           " at " + segmed::number_text(std::round(1e6 * double(rate)) / 1e6);
  }
};

/// The names that --network takes.
inline std::vector<std::string> network_names() {
  return {"residual_unet", "unet", "dynamic_unet"};
}

inline segmed::Json to_json(const Recipe& recipe) {
  segmed::Json json;
  json["plan"] = segmed::to_json(recipe.plan);
  json["classes"] = segmed::Json::list(recipe.classes.names);
  json["network"] = recipe.network;
  json["loss"] = recipe.loss;
  json["optimizer"] = recipe.optimizer;
  json["rate"] = double(recipe.rate);
  json["average"] = double(recipe.average);
  json["deep_supervision"] = recipe.deep_supervision;
  json["flip"] = recipe.flip;
  if (recipe.elastic > 0) json["elastic"] = double(recipe.elastic);
  if (recipe.blur > 0) json["blur"] = double(recipe.blur);
  if (recipe.low_resolution > 0) json["low_resolution"] = double(recipe.low_resolution);
  if (recipe.balance_sources) json["balance_sources"] = true;
  return json;
}
inline Recipe recipe_of(const segmed::Json& json) {
  Recipe recipe;
  recipe.plan = segmed::plan_of(json.at("plan"));
  std::vector<std::string> names;
  for (const segmed::Json& name : json.at("classes").as_array()) names.push_back(name.as_string());
  names.erase(names.begin());  // background
  recipe.classes = segmed::ClassTable::of(names);
  recipe.network = json.at("network").as_string();
  recipe.loss = json.at("loss").as_string();
  recipe.optimizer = json.at("optimizer").as_string();
  recipe.rate = float(json.at("rate").as_number());
  recipe.average = float(json.at("average").as_number());
  recipe.deep_supervision = json.at("deep_supervision").as_bool();
  recipe.flip = json.at("flip").as_string();
  const auto chance = [&](const char* name) {
    return json.has(name) ? float(json.at(name).as_number()) : 0.0f;
  };
  recipe.elastic = chance("elastic"), recipe.blur = chance("blur");
  recipe.low_resolution = chance("low_resolution");
  recipe.balance_sources = json.has("balance_sources");
  return recipe;
}

}  // namespace experiments
