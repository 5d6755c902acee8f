#pragma once

#include <filesystem>
#include <string>

#include "common/result.hpp"

namespace tessera {

// The folder that holds a model's files, for what a user gave as the model: a folder, or a folder
// models--ORG--NAME of the Hugging Face hub's cache, of which it is the snapshot of refs/main.
// Everything else is refused by its own sentence: nothing there, a hub name, a file (GGUF or
// other), no permission, an adapter, a folder of GGUF or ONNX or only .bin files, no config.json.
Result<std::filesystem::path> find_model_folder(const std::filesystem::path& given);

// The name that a model is served under unless the user gives one: the folder's, and NAME for a
// folder models--ORG--NAME.
std::string model_name(const std::filesystem::path& given);

}  // namespace tessera
