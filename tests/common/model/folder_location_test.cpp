// Things given as a model that are none, or hold it somewhere else: each has its own sentence.

#include "common/model/folder_location.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/model/model_folder.hpp"
#include "tests/common/model/demo_folder.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLfs =
    "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 16000000\n";

std::string refusal_of(const fs::path& given) {
  const auto checked = check_model_folder(given);
  return checked.ok() ? "served" : checked.error().message;
}

TEST(FolderLocation, EachCauseHasItsSentence) {
  struct Case {
    std::string given;  // in the scratch folder, or the folder itself
    std::function<void(const DemoFolder&)> make;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"no-such-folder", [](const DemoFolder&) {}, {"there is no such folder"}},
      {"config.json", [](const DemoFolder&) {}, {"is a file", "give the folder"}},
      {"m.GGUF", [](const DemoFolder& f) { f.write("m.GGUF", "x"); }, {"is a GGUF file"}},
      {"m.bin", [](const DemoFolder& f) { f.write("m.bin", "GGUF\3"); }, {"is a GGUF file"}},
      {"pointer", [](const DemoFolder& f) { f.write("pointer", kLfs); }, {"Git LFS pointer"}},
      {"empty", [](const DemoFolder& f) { fs::create_directory(f.path() / "empty"); }, {"empty"}},
      {"g", [](const DemoFolder& f) { f.write("g/m.Q8_0.gguf", "x"); }, {"holds a GGUF file"}},
      {"h", [](const DemoFolder& f) { f.write("h/notes.txt", "x"); }, {"holds no config.json"}},
      {"hub",
       [](const DemoFolder& f) { f.write("hub/models--a--b/refs/main", "x"); },
       {"cache of several models"}},
      {"",
       [](const DemoFolder& f) { f.write("adapter_config.json", R"({"peft_type": "LORA"})"); },
       {"adapter", "merge_and_unload"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("config.json");
         f.remove("modules.json");
         f.write("adapter_config.json", "{}");
       },
       {"adapter"}},
      {"", [](const DemoFolder& f) { f.remove("config.json"); }, {"config.json is not there"}},
      {"", [](const DemoFolder& f) { f.write("config.json", kLfs); }, {"config.json", "LFS"}},
      {"", [](const DemoFolder& f) { f.write("tokenizer.json", kLfs); }, {"tokenizer.json", "LFS"}},
      {"",
       [](const DemoFolder& f) { f.write("model.safetensors", kLfs); },
       {"model.safetensors", "LFS", "git lfs pull"}},
      {"", [](const DemoFolder& f) { f.write("modules.json", kLfs); }, {"modules.json", "LFS"}},
      {"",
       [](const DemoFolder& f) { f.write("config.json", "{\"model_type\": \"qw"); },
       {"config.json", "not valid JSON"}},
      {"",
       [](const DemoFolder& f) { f.remove("tokenizer.json"); },
       {"tokenizer.json is not there"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("tokenizer.json");
         f.write("vocab.json", "{}");
       },
       {"only vocab.json"}},
      {"", [](const DemoFolder& f) { f.remove("model.safetensors"); }, {"holds no weights"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("model.safetensors");
         f.write("pytorch_model.bin", "x");
       },
       {"only in pytorch_model.bin", "safetensors"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("model.safetensors");
         f.write("m.GGUF", "x");
       },
       {"only in m.GGUF"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("model.safetensors");
         f.write("training_args.bin", "x");
       },
       {"holds no weights"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("model.safetensors");
         fs::create_symlink("../blobs/gone", f.path() / "model.safetensors");
       },
       {"model.safetensors is a link to a file that is not there"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("model.safetensors");
         f.write("model.safetensors.index.json",
                 R"({"weight_map": {"norm.weight": "model-00001-of-00002.safetensors"}})");
       },
       {"names the file model-00001-of-00002.safetensors", "not there"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("model.safetensors");
         f.write("model.safetensors", "<!DOCTYPE html><html></html>");
       },
       {"no whole safetensors file"}},
      {"",
       [](const DemoFolder& f) {
         f.remove("config.json");
         fs::create_directory(f.path() / "config.json");
       },
       {"is a folder, not a file"}},
  };
  for (const Case& c : cases) {
    const DemoFolder folder;
    c.make(folder);
    const std::string message =
        refusal_of(c.given.empty() ? folder.path() : folder.path() / c.given);
    for (const std::string& says : c.says) {
      EXPECT_NE(message.find(says), std::string::npos) << says << " in: " << message;
    }
  }
  const std::string hub_name = refusal_of("Qwen/Qwen3-Embedding-0.6B");
  EXPECT_NE(hub_name.find("hf download Qwen/Qwen3-Embedding-0.6B"), std::string::npos) << hub_name;
}

TEST(FolderLocation, PermissionIsSaidAsSuch) {
  if (::geteuid() == 0) {
    GTEST_SKIP() << "everything is permitted to root";
  }
  for (const char* name : {"config.json", "model.safetensors", "."}) {
    const DemoFolder folder;
    if (std::string(name) == "model.safetensors") folder.write(name, "x");
    ASSERT_EQ(::chmod((folder.path() / name).c_str(), 0), 0);
    EXPECT_NE(refusal_of(folder.path()).find("permission denied"), std::string::npos)
        << refusal_of(folder.path());
    ::chmod((folder.path() / name).c_str(), 0700);
  }
}

// A folder models--ORG--NAME of the hub's cache, with snapshots of links into its blobs.
class HubCache {
 public:
  HubCache() {
    for (const char* snapshot : {"aaa", "bbb"}) {
      const fs::path to = path() / "snapshots" / snapshot;
      fs::create_directories(to);
      for (const auto& entry : fs::directory_iterator(demo_.path())) {
        fs::create_symlink(entry.path(), to / entry.path().filename());
      }
    }
  }
  fs::path path() const { return scratch_.path() / "models--Qwen--Tiny-Embedding"; }
  void point(const std::string& snapshot) const {
    scratch_.write("models--Qwen--Tiny-Embedding/refs/main", snapshot);
  }

 private:
  DemoFolder demo_;
  ScratchFolder scratch_;
};

TEST(FolderLocation, AHubCacheIsItsMainSnapshot) {
  const HubCache cache;
  EXPECT_NE(refusal_of(cache.path()).find("2 snapshots and no refs/main"), std::string::npos);
  cache.point("ccc");
  EXPECT_NE(refusal_of(cache.path()).find("ccc, which is not there"), std::string::npos);
  cache.point("bbb\n");
  EXPECT_EQ(refusal_of(cache.path()), "served");
  const ModelFolder folder = read_model_folder(cache.path()).value();
  EXPECT_EQ(folder.dir, cache.path() / "snapshots/bbb");
  EXPECT_EQ(folder.name, "Tiny-Embedding");
  EXPECT_EQ(refusal_of(cache.path() / "snapshots/aaa"), "served");
  fs::remove_all(cache.path() / "refs");
  fs::remove_all(cache.path() / "snapshots/aaa");
  EXPECT_EQ(refusal_of(cache.path()), "served") << "the only snapshot";
}

TEST(FolderLocation, NamesAModelByItsFolder) {
  EXPECT_EQ(model_name("deploy/data/demo-model"), "demo-model");
  EXPECT_EQ(model_name("deploy/data/demo-model/"), "demo-model");
  EXPECT_EQ(model_name("/x/models--gpt2"), "gpt2");
}

}  // namespace
}  // namespace tessera
