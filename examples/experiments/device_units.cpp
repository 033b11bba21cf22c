// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"
#include "networks.hpp"
#include "policies.hpp"

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

#if defined(__CUDACC__)
const DeviceUnits units = {table,     load_model, Cuda::count,
                           Cuda::use, Cuda::name, [] { return std::string("bfloat16"); }};
#else
const DeviceUnits units = {table,
                           load_model,
                           [] { return 1; },
                           [](int) {},
                           [](int) { return std::string(); },
                           [] { return std::string("float"); }};
#endif

}  // namespace experiments::ON_DEVICE
