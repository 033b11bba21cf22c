// SPDX-License-Identifier: Apache-2.0
#include <type_traits>

#include "device.hpp"
#include "networks.hpp"
#include "policies.hpp"
#include <segmed/backend/convolution_mode.hpp>
#include <segmed/backend/targets.hpp>

namespace experiments::ON_DEVICE {

using namespace segmed;

// A new policy stands in these two lists and in a policy_<name>.cpp.
extern const PolicyEntry supervised, marginal, exclusion, target_adaptive, leaf_dice,
    masked_sigmoid, dynamic_head, partial_completion, self_training, entropy, mean_teacher, uamt,
    ict, transform, deformation, fixmatch, unimatch, cps, cross_teaching, rdrop, cct, mcnet, urpc,
    dtc, dan, bcp, cube_shuffle;

static const std::vector<const PolicyEntry*>& table() {
  static const std::vector<const PolicyEntry*> all = {&supervised,
                                                      &marginal,
                                                      &exclusion,
                                                      &target_adaptive,
                                                      &leaf_dice,
                                                      &masked_sigmoid,
                                                      &dynamic_head,
                                                      &partial_completion,
                                                      &self_training,
                                                      &entropy,
                                                      &mean_teacher,
                                                      &uamt,
                                                      &ict,
                                                      &transform,
                                                      &deformation,
                                                      &fixmatch,
                                                      &unimatch,
                                                      &cps,
                                                      &cross_teaching,
                                                      &rdrop,
                                                      &cct,
                                                      &mcnet,
                                                      &urpc,
                                                      &dtc,
                                                      &dan,
                                                      &bcp,
                                                      &cube_shuffle};
  return all;
}

static std::string convolutions() {
  return std::string(name_of(convolution_mode())) + " convolutions";
}

#if defined(__CUDACC__)
static std::string type_of_maps() { return "bfloat16"; }
static std::string arithmetic() {
  const CudnnSwitches may = Cudnn::switches();
  return Cudnn::machine().text() + ", " + type_of_maps() + ", " + convolutions() +
         (may.tf32 ? ", TF32" : "") + (may.nondeterministic ? ", nondeterministic" : "");
}
static std::vector<std::string> plans(bool plain) {
  return CudnnContext::current(Cuda::stream()).report(plain);
}
static std::string tuning() { return Cudnn::tuning().dump(1); }
static void use_tuning(const std::string& table) {
  Cudnn::use_tuning(table.empty() ? TuningTable{}.json() : parse_json(table, "tuning table"));
}
static std::vector<std::string> allow(bool tf32, bool nondeterministic) {
  constexpr bool of_floats = std::is_same_v<Number, float>;
  Cudnn::nondeterministic(nondeterministic);
  Cudnn::tf32(tf32 && of_floats);
  if (!tf32 || Cudnn::switches().tf32) return {};
  return {"--tf32 changes nothing: " +
          (of_floats ? "SEGMED_CONV asks for " + convolutions()
                     : "feature maps are " + type_of_maps() + " here, and TF32 is a way to " +
                           "multiply floats")};
}
const DeviceUnits units = {table,       train,       check_start, load_model,   label_blank_patch,
                           Cuda::count, Cuda::use,   Cuda::name,  type_of_maps, arithmetic,
                           plans,       Cudnn::tune, tuning,      use_tuning,   allow};
#else
static std::string arithmetic() {
  return std::string(kernels<float>().set) + ", " + convolutions();
}
static void tune(int engines) {
  require<ConfigError>(engines == 0, "tune",
                       "which kernels the processor takes follows from shapes alone, so that there "
                       "is nothing to tune; give --device cuda");
}
static void use_tuning(const std::string& table) { tune(int(!table.empty())); }
static std::vector<std::string> allow(bool tf32, bool nondeterministic) {
  std::vector<std::string> lines;
  if (tf32) lines.push_back("--tf32 changes nothing: the processor multiplies floats as floats");
  if (nondeterministic)
    lines.push_back(
        "--allow-nondeterministic changes nothing: the processor gives the same bits in each run");
  return lines;
}
const DeviceUnits units = {table,
                           train,
                           check_start,
                           load_model,
                           label_blank_patch,
                           [] { return 1; },
                           [](int) {},
                           [](int) { return std::string(); },
                           [] { return std::string("float"); },
                           arithmetic,
                           [](bool) { return std::vector<std::string>{}; },
                           tune,
                           [] { return std::string(); },
                           use_tuning,
                           allow};
#endif

}  // namespace experiments::ON_DEVICE
