// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <filesystem>

#include "networks.hpp"
#include <segmed/data/prepare.hpp>
#include <segmed/train/checkpoint.hpp>
#include <segmed/train/inference.hpp>

namespace experiments::ON_DEVICE {

using namespace segmed;

namespace {

template <class F>
Volume<std::uint8_t> predict(const AnyNetwork<F>& net, const Recipe& recipe,
                             const Volume<float>& scan, bool mirror) {
  require<DataError>(scan.channels == recipe.plan.channels, "predict", "the scan has ",
                     scan.channels, " channels, the model was trained with ", recipe.plan.channels);
  const Preparation& how = recipe.plan.preparation;
  Example example;
  example.image = scan;
  const ReadyCase ready = make_ready(example, how);
  SlidingWindow window{.patch = recipe.plan.patch, .outside = ready.outside.at(0)};
  if (mirror) {
    // A view that the network never saw in training makes the average worse.
    require<ConfigError>(!recipe.flip.empty(), "--mirror",
                         "this model was not trained on mirrored patches; leave --mirror out, or "
                         "train with --flip");
    for (std::size_t axis = 0; axis < 3; ++axis)
      window.mirror[axis] =
          !(recipe.flat() && axis == 2) && recipe.flip.find("xyz"[axis]) != recipe.flip.npos;
    window.partner = recipe.classes.mirror;
  }
  const auto labels = segment<F>(net, ready.example.image, window).labels;
  return resample_onto(labels, VoxelGrid{scan.extent, scan.geometry}, Interpolation::nearest);
}

template <class F>
Model built(const Recipe& recipe, const Checkpoint& point) {
  auto net = std::make_shared<AnyNetwork<F>>(network_of<F>(recipe, point.state.seed));
  point.load("network", *net);
  Model model;
  model.recipe = recipe;
  model.predict = [net, recipe](const Volume<float>& scan, bool mirror) {
    return predict<F>(*net, recipe, scan, mirror);
  };
  return model;
}

template <class F>
void label_blank(const Recipe& recipe) {
  const auto blank = make_volume<float>(recipe.plan.patch, {}, recipe.plan.channels);
  segment<F>(network_of<F>(recipe, 1), blank, {.patch = recipe.plan.patch});
}

}  // namespace

void label_blank_patch(const Recipe& recipe) {
  if (recipe.flat())
    label_blank<Flat>(recipe);
  else
    label_blank<Solid>(recipe);
}

Model load_model(const std::string& path) {
  const bool folder = std::filesystem::is_directory(path);
  const std::string file = folder ? path + "/last.safetensors" : path;
  require<FileError>(
      std::filesystem::exists(file), "model", file,
      folder ? ": is not there; this folder holds no finished run" : ": there is no such file");
  const Checkpoint point = Checkpoint::read(file);
  const Recipe recipe = recipe_of(parse_json(point.card.options, file));
  return recipe.flat() ? built<Flat>(recipe, point) : built<Solid>(recipe, point);
}

}  // namespace experiments::ON_DEVICE
