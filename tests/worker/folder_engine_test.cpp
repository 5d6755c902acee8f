// What a folder says beside its graph, through whole engines: Dense modules, types of weights.

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>

#include "common/check.hpp"
#include "common/float16.hpp"
#include "common/model/weights/dense_weights.hpp"
#include "tests/common/model/demo_folder.hpp"
#include "tests/worker/embed_helpers.hpp"
#include "worker/create_engine.hpp"

namespace tessera::worker {
namespace {

using Json = nlohmann::json;
using kernels::DType;

struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Tensor>;

enum class Stored : std::uint8_t { kFloat32, kFloat16 };

std::string safetensors(const Tensors& tensors, Stored stored) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t begin = data.size();
    for (const float value : tensor.values) {
      const std::uint16_t half = to_float16(value);
      data.append(stored == Stored::kFloat16 ? reinterpret_cast<const char*>(&half)
                                             : reinterpret_cast<const char*>(&value),
                  stored == Stored::kFloat16 ? 2 : 4);
    }
    header[name] = {{"dtype", stored == Stored::kFloat16 ? "F16" : "F32"},
                    {"shape", tensor.shape},
                    {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const std::uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + text + data;
}

// The demo's weights; with `half`, rounded to float16.
Tensors demo_tensors(bool half) {
  const auto folder = SafetensorsFolder::open("deploy/data/demo-model");
  Tensors tensors;
  for (const auto& [name, view] : folder->tensors()) {
    Tensor& tensor = tensors[name];
    tensor = {view.shape, to_float32(view, name).value()};
    for (float& value : tensor.values) {
      value = half ? from_float16(to_float16(value)) : value;
    }
  }
  return tensors;
}

std::unique_ptr<Engine> engine_of(const DemoFolder& folder, DType type = DType::kFloat32) {
  return create_engine({.model_dir = folder.path(),
                        .threads = 2,
                        .max_batch_tokens = 512,
                        .weight_type = type,
                        .measure_cost = false});
}

const std::vector<Ids> kTexts = {{5, 17, 99, 16000}, {16000}, {1, 2, 3, 4, 5, 6, 7, 16000}};

TEST(FolderEngine, Float16WeightsAreTheSameNumbersInFloat32) {
  const DemoFolder half, whole;
  half.write("model.safetensors", safetensors(demo_tensors(true), Stored::kFloat16));
  whole.write("model.safetensors", safetensors(demo_tensors(true), Stored::kFloat32));
  for (const DType type : {DType::kFloat32, DType::kBFloat16}) {
    EXPECT_EQ(embed(*engine_of(half, type), kTexts), embed(*engine_of(whole, type), kTexts));
  }
}

TEST(FolderEngine, Float16WeightsThatAreNotFiniteAreRefusedByName) {
  for (const char* name : {"layers.1.mlp.down_proj.weight", "norm.weight", "embed_tokens.weight",
                           "layers.0.input_layernorm.weight"}) {
    Tensors tensors = demo_tensors(true);
    auto found = tensors.find(name);
    if (found == tensors.end()) found = tensors.find(std::string("model.") + name);
    ASSERT_NE(found, tensors.end());
    found->second.values[5] = 1e30F;  // Infinity, in float16.
    const DemoFolder folder;
    folder.write("model.safetensors", safetensors(tensors, Stored::kFloat16));
    try {
      (void)engine_of(folder);
      ADD_FAILURE() << name;
    } catch (const FatalError& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
  }
}

// Weights that are not symmetric in anything, the same everywhere.
std::vector<float> numbers(std::size_t count, std::uint32_t seed) {
  std::vector<float> values(count);
  for (float& value : values) {
    seed = seed * 1664525U + 1013904223U;
    value = static_cast<float>(static_cast<double>(seed) / 4294967296.0 - 0.5);
  }
  return values;
}

struct Dense {
  std::int64_t in = 256, out = 64;
  bool bias = false;
  bool tanh = false;
  std::string dir = "2_Dense";
  std::vector<float> weight = numbers(static_cast<std::size_t>(in * out), 7);
  std::vector<float> offset = numbers(static_cast<std::size_t>(out), 11);
};

void write_dense(const DemoFolder& folder, const Dense& dense) {
  folder.write(dense.dir + "/config.json",
               Json{{"in_features", dense.in},
                    {"out_features", dense.out},
                    {"bias", dense.bias},
                    {"activation_function", dense.tanh ? "torch.nn.modules.activation.Tanh"
                                                       : "torch.nn.modules.linear.Identity"}}
                   .dump());
  Tensors tensors = {{"linear.weight", {{dense.out, dense.in}, dense.weight}}};
  if (dense.bias) {
    tensors["linear.bias"] = {{dense.out}, dense.offset};
  }
  folder.write(dense.dir + "/model.safetensors", safetensors(tensors, Stored::kFloat32));
}

void list_modules(const DemoFolder& folder, const std::vector<std::string>& behind_pooling) {
  folder.edit("modules.json", [&](Json& list) {
    list.erase(2);
    for (const std::string& path : behind_pooling) {
      const bool normalize = path == "Normalize";
      list.push_back({{"name", std::to_string(list.size())},
                      {"path", normalize ? "2_Normalize" : path},
                      {"type", normalize ? "sentence_transformers.models.Normalize"
                                         : "sentence_transformers.models.Dense"}});
    }
  });
}

using Vector = std::vector<double>;

void normalize(Vector& vector) {
  double squares = 0;
  for (const double value : vector) squares += value * value;
  for (double& value : vector) value /= std::sqrt(squares);
}

// The pooled vector before unit length: the final norm leaves x with a mean square of 1, so the
// length follows from the direction and the norm's weight.
Vector pooled(const std::vector<float>& unit, const std::vector<float>& norm) {
  double squares = 0;
  for (std::size_t i = 0; i < unit.size(); ++i) squares += std::pow(double{unit[i]} / norm[i], 2);
  const double length = std::sqrt(static_cast<double>(unit.size()) / squares);
  Vector raw;
  for (const float value : unit) raw.push_back(value * length);
  return raw;
}

Vector through(const Dense& dense, const Vector& in) {
  Vector out;
  for (std::int64_t o = 0; o < dense.out; ++o) {
    double sum = dense.bias ? dense.offset[static_cast<std::size_t>(o)] : 0;
    for (std::int64_t i = 0; i < dense.in; ++i) {
      sum += in[static_cast<std::size_t>(i)] *
             dense.weight[static_cast<std::size_t>(o * dense.in + i)];
    }
    out.push_back(dense.tanh ? std::tanh(sum) : sum);
  }
  return out;
}

TEST(FolderEngine, DenseModulesGiveWhatDoublePrecisionGives) {
  const std::vector<float> norm = [] {
    Tensors tensors = demo_tensors(false);
    const auto found = tensors.find("norm.weight");
    return (found == tensors.end() ? tensors.at("model.norm.weight") : found->second).values;
  }();
  const auto plain = embed(*engine_of(DemoFolder()), kTexts);
  const Dense linear{}, bias{.bias = true}, tanh{.bias = true, .tanh = true},
      second{.in = 64, .out = 48, .bias = true, .tanh = true, .dir = "3_Dense"},
      wider{.out = 320, .tanh = true};
  struct Case {
    std::vector<Dense> dense;
    bool normalize_first = false;
  };
  const Case cases[] = {{{linear}},     {{bias}},         {{tanh}},  {{bias}, true},
                        {{tanh}, true}, {{tanh, second}}, {{wider}}, {{linear, second}}};
  for (const Case& c : cases) {
    const DemoFolder folder;
    std::vector<std::string> listed;
    if (c.normalize_first) listed.push_back("Normalize");
    for (const Dense& dense : c.dense) {
      write_dense(folder, dense);
      listed.push_back(dense.dir);
    }
    list_modules(folder, listed);
    const auto engine = engine_of(folder);
    EXPECT_EQ(engine->info().hidden_size, c.dense.back().out);
    const auto got = embed(*engine, kTexts);
    for (std::size_t i = 0; i < kTexts.size(); ++i) {
      Vector expected = pooled(plain[i], norm);
      if (c.normalize_first) normalize(expected);
      for (const Dense& dense : c.dense) expected = through(dense, expected);
      normalize(expected);
      ASSERT_EQ(got[i].size(), expected.size());
      for (std::size_t d = 0; d < expected.size(); ++d) {
        EXPECT_NEAR(got[i][d], expected[d], 2e-5) << "text " << i;
      }
    }
  }
}

// Whatever stands beside it in a batch, and on whichever thread.
TEST(FolderEngine, ARowOfADenseModuleHasTheSameBitsInAnyBatch) {
  const DemoFolder folder;
  write_dense(folder, Dense{.bias = true, .tanh = true});
  list_modules(folder, {"2_Dense", "Normalize"});
  const auto engine = engine_of(folder);
  const std::vector<Ids> same(50, kTexts[0]);
  const auto many = embed(*engine, same);
  for (const auto& vector : many) {
    EXPECT_EQ(vector, many[0]);
  }
}

}  // namespace
}  // namespace tessera::worker
