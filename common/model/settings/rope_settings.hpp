#pragma once

#include "common/model/settings/settings.hpp"

namespace tessera {

// rope_theta by the rules of transformers 5, which reads what 4 wrote:
//   1. `rope_scaling`, where it is a filled object, stands for `rope_parameters`;
//   2. the object may be one for each layer type; here all layers are "full_attention";
//   3. its own rope_theta, else the one beside it, else 10000.
// Where 4 and 5 would take two different numbers, and where the type is not "default", `config`
// gets a complaint.
double read_rope_theta(Settings& config);

}  // namespace tessera
