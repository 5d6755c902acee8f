// The engine on a GPU: against transformers' vectors of the small models, against itself alone and
// in any batch, with numbers beyond float16, and that serving takes no memory.

#include <ostream>

#include "common/model/settings/small_file.hpp"
#include "tests/support/gpu_test.hpp"
#include "tests/worker/reference_case.hpp"
#include "worker/create_engine.hpp"

namespace tessera::worker {
namespace {

using kernels::DType;

constexpr double kCosineMin = 0.9995;
constexpr double kAloneCosineMin = 0.99999;

class OnGpu : public testing::GpuTest {
 protected:
  static Served serve(const Reference& reference) {
    return Served(reference, DType::kBFloat16, 2, "cuda:0");
  }
};

class CudaReferences : public OnGpu, public ::testing::WithParamInterface<const char*> {};

TEST_P(CudaReferences, AreReachedAloneAndInOneMixedBatch) {
  const Reference reference = read_reference(GetParam());
  ASSERT_EQ(reference.ids.size(), 5U);
  const Served served = serve(reference);
  const auto together = embed(*served.engine, reference.ids);
  for (std::size_t i = 0; i < together.size(); ++i) {
    const auto alone = embed(*served.engine, {reference.ids[i]}, 1)[0];
    EXPECT_GE(cosine(together[i], reference.vectors[i]), kCosineMin) << reference.ids[i].size();
    EXPECT_GE(cosine(alone, reference.vectors[i]), kCosineMin) << reference.ids[i].size();
    EXPECT_GE(cosine(alone, together[i]), kAloneCosineMin) << reference.ids[i].size();
  }
}

TEST_P(CudaReferences, TheSameBatchTwiceGivesTheSameBits) {
  const Reference reference = read_reference(GetParam());
  const Served served = serve(reference);
  const auto first = embed(*served.engine, reference.ids);
  for (const int slot : {0, 1, 0}) {
    EXPECT_EQ(embed(*served.engine, reference.ids, slot), first) << slot;
  }
}

// Of two batches that are launched step by step, and one that is replayed between them.
TEST_P(CudaReferences, AnExpressBatchOvertakesAndNoBitChanges) {
  const Reference reference = read_reference(GetParam());
  const Served made(reference, DType::kBFloat16);
  const auto engine = create_engine({.model_dir = made.folder.path(),
                                     .device = "cuda:0",
                                     .max_batch_tokens = 4096,
                                     .measure_cost = false,
                                     .piece_s = 1});
  std::vector<Ids> batch;
  for (int i = 0; i < 6; ++i) batch.insert(batch.end(), 1, Ids(500 - i, i + 1));
  for (const auto& express :
       {std::vector<Ids>{Ids(17, 5)}, {Ids(300, 6), Ids(40, 1)}, {Ids(400, 6), Ids(600, 1)}}) {
    expect_same_bits_overtaken(*engine, batch, express);
  }
}

INSTANTIATE_TEST_SUITE_P(All, CudaReferences, ::testing::Values("narrow", "square", "wide"));

class CudaEngine : public OnGpu {};

// Of bf16 tensors whose name contains `part`: times 2 to the `exponent`, exactly.
void scale_tensors(const ScratchFolder& folder, const std::string& part, int exponent) {
  const auto file = folder.path() / "model.safetensors";
  std::string bytes = read_small_file(file, 1 << 28).value();
  {
    const auto model = SafetensorsFolder::open(folder.path());
    const auto* begin = model->files()[0].mapping.bytes().data();
    for (const auto& [name, tensor] : model->tensors()) {
      if (name.find(part) == std::string::npos) continue;
      const auto first = static_cast<std::size_t>(tensor.bytes.data() - begin);
      for (std::size_t at = first; at < first + tensor.bytes.size(); at += 2) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, bytes.data() + at, sizeof bits);
        if ((bits & 0x7F80) == 0) continue;  // 0, or too small to matter
        bits = static_cast<std::uint16_t>(bits + (exponent << 7));
        std::memcpy(bytes.data() + at, &bits, sizeof bits);
      }
    }
  }
  folder.write("model.safetensors", bytes);
}

struct Scaled {
  const char* tensors;
  int exponent;
};

// Activations of millions, where float16 ends at 65,504: embeddings, gated products, sums.
TEST_F(CudaEngine, NumbersBeyondFloat16GiveTheVectorsOfFloat32) {
  const Reference reference = read_reference("narrow");
  for (const Scaled& scaled :
       {Scaled{"embed_tokens", 20}, Scaled{"up_proj", 20}, Scaled{"down_proj", 20},
        Scaled{"v_proj", 20}, Scaled{"o_proj", 24}, Scaled{"layernorm", 20}}) {
    const Served made(reference, DType::kFloat32);
    scale_tensors(made.folder, scaled.tensors, scaled.exponent);
    const auto vectors_on = [&](const char* device) {
      const auto engine = create_engine(
          {.model_dir = made.folder.path(),
           .device = device,
           .max_batch_tokens = 1024,
           .weight_type = std::string_view(device) == "cpu" ? DType::kFloat32 : DType::kBFloat16,
           .measure_cost = false});
      return embed(*engine, reference.ids);  // expects every vector to be finite
    };
    const auto expected = vectors_on("cpu");
    const auto actual = vectors_on("cuda:0");
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_GE(cosine(actual[i], expected[i]), 0.999)
          << scaled.tensors << ", " << reference.ids[i].size() << " tokens";
    }
  }
}

// In one batch NaN may reach the sequence in front, whose last tile of keys reaches further; never
// one alone.
TEST_F(CudaEngine, WeightsThatAreNotFiniteAreReported) {
  const Reference reference = read_reference("narrow");
  const Served made(reference, DType::kFloat32);
  auto bytes = read_small_file(made.folder.path() / "model.safetensors", 1 << 28).value();
  {
    const auto folder = SafetensorsFolder::open(made.folder.path());
    const auto table = folder->find("embed_tokens.weight")->bytes;
    const auto at =
        static_cast<std::size_t>(table.data() - folder->files()[0].mapping.bytes().data());
    bytes[at + 7 * 128 * 2] = '\xC0';
    bytes[at + 7 * 128 * 2 + 1] = '\x7F';
  }
  made.folder.write("model.safetensors", bytes);
  const auto engine = create_engine({.model_dir = made.folder.path(),
                                     .device = "cuda:0",
                                     .max_batch_tokens = 1024,
                                     .measure_cost = false});
  const auto finite = [&](const std::vector<Ids>& sequences) {
    engine->enqueue(0, pack(sequences).view());
    engine->wait(0);
    return std::vector<std::uint8_t>(engine->finite(0).begin(), engine->finite(0).end());
  };
  const auto together = finite({{1, 2, 3}, {5, 7, 9}, {4}});
  EXPECT_EQ(together[1], 0);
  EXPECT_EQ(together[2], 1);
  EXPECT_EQ(finite({{1, 2, 3}}), std::vector<std::uint8_t>{1});
  EXPECT_EQ(finite({{5, 7, 9}}), std::vector<std::uint8_t>{0});
  EXPECT_EQ(finite({{1, 2, 3}, {4}}), (std::vector<std::uint8_t>{1, 1}));
}

// Asks the driver, which sees what recordings, libraries and code take as well.
TEST_F(CudaEngine, ServingTakesNoDeviceMemory) {
  const Reference reference = read_reference("square");
  const Served served = serve(reference);
  const auto device = kernels::make_cuda_backend({});
  const std::size_t before = device->free_memory_bytes();
  int slot = 0;
  for (int tokens = 1; tokens <= 1024; tokens += tokens / 8 + 1) {
    for (int sequences = 1; 2 * sequences <= tokens + 1; sequences *= 3) {
      const std::vector<Ids> texts(static_cast<std::size_t>(sequences),
                                   Ids(static_cast<std::size_t>(tokens / sequences), 7));
      (void)embed(*served.engine, texts, slot);
      slot = 1 - slot;
    }
    (void)embed(*served.engine, std::vector<Ids>(2, Ids(static_cast<std::size_t>(tokens), 9)));
  }
  EXPECT_EQ(device->free_memory_bytes(), before);
}

}  // namespace
}  // namespace tessera::worker
