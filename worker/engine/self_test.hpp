#pragma once

#include <string>
#include <vector>

#include "common/model/model_folder.hpp"
#include "worker/engine/engine.hpp"

namespace tessera::worker {

struct SelfTestResult {
  std::string what;
  bool passed = false;
  std::string detail;  // "largest difference 3e-4", or why it failed
};

// Checks that an engine's answers can be trusted, before any is given:
//   - the tokenizer loads and fits the folder's settings (load_tokenizer);
//   - texts of several lengths give finite unit vectors, the same ones twice, and alone nearly the
//     same as in a batch;
//   - where the folder has a golden.json ([{text, ids, vec}]), its ids and vectors are reached.
// Takes a few short batches of an idle engine's time. Throws FatalError where the device fails.
std::vector<SelfTestResult> run_self_tests(Engine& engine, const ModelFolder& model);

}  // namespace tessera::worker
