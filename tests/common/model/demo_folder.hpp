#pragma once

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/common/model/scratch_folder.hpp"

namespace tessera {

// A copy of the demo model for one test to change; its large files are links until written.
class DemoFolder {
 public:
  using Json = nlohmann::json;

  DemoFolder() {
    namespace fs = std::filesystem;
    const fs::path demo = fs::absolute("deploy/data/demo-model");
    for (const char* name : {"config.json", "config_sentence_transformers.json", "modules.json",
                             "1_Pooling/config.json"}) {
      write(name, read(demo / name).dump());
    }
    fs::create_symlink(demo / "model.safetensors", path() / "model.safetensors");
    fs::create_symlink(demo / "tokenizer.json", path() / "tokenizer.json");
  }

  const std::filesystem::path& path() const { return scratch_.path(); }
  void write(const std::string& name, std::string_view content) const {
    remove(name);
    scratch_.write(name, content);
  }
  void remove(const std::string& name) const { std::filesystem::remove_all(path() / name); }
  void move(const std::string& from, const std::string& to) const {
    std::filesystem::create_directories((path() / to).parent_path());
    std::filesystem::rename(path() / from, path() / to);
  }
  // Changes a JSON file, or begins it.
  void edit(const std::string& name, const std::function<void(Json&)>& change) const {
    Json json = std::filesystem::exists(path() / name) ? read(path() / name) : Json::object();
    change(json);
    write(name, json.dump());
  }
  void set(const std::string& name, const std::string& key, const Json& value) const {
    edit(name, [&](Json& json) { json[key] = value; });
  }

 private:
  static Json read(const std::filesystem::path& path) {
    std::ifstream file(path);
    return Json::parse(file);
  }

  ScratchFolder scratch_;
};

}  // namespace tessera
