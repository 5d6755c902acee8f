#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.hpp"
#include "coordinator/core/items/served_model.hpp"

namespace tessera::coordinator {

// What the coordinator needs of a Hugging Face folder: limits, prompts and the tokenizer. Weights
// are the workers' matter.
struct CatalogEntry {
  ServedModel model;
  Tokenizer tokenizer;
};

// Reads folders given as DIR or NAME=DIR; without a name the folder's own. Throws FatalError with
// the folder and what is wrong with it.
std::vector<CatalogEntry> load_models(const std::vector<std::string>& arguments);

}  // namespace tessera::coordinator
