#include <numeric>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/layers/sm90_layers.hpp"
#include "tests/kernels/gpu.hpp"
#include "tests/support/layers_case.hpp"

namespace tessera::testing {
namespace {

using namespace kernels::cuda;  // what is tested

// Whole layers at once against the kernels that they stand for, bit for bit.
class Layers : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    cudaDeviceProp properties{};
    cuda_check(cudaGetDeviceProperties(&properties, 0));
    if (properties.major != 9) {
      std::puts("ALL TESTS SKIPPED: no Hopper GPU");
      GTEST_SKIP() << "for Hopper";
    }
  }

  static std::size_t count_different(LayersCase::Activations::Rows& a,
                                     LayersCase::Activations::Rows& b, std::int64_t rows) {
    const auto left = a.host(rows), right = b.host(rows);
    std::size_t different = 0;
    for (std::size_t i = 0; i < left.size(); ++i) {
      // A sum of exactly zero may have either sign.
      different += left[i] != right[i] && ((left[i] | right[i]) & 0x7FFF) != 0 ? 1 : 0;
    }
    return different;
  }

  // Runs both ways and compares what the last layer left.
  static void compare(LayersCase& layers, const std::vector<std::int32_t>& lengths, int begin,
                      int end) {
    layers.set_lengths(lengths);
    if (!layers.runner.supports(layers.rows)) GTEST_FAIL() << "not supported";
    LayersCase::Activations expected(layers.shape, kLayersRowsMax);
    LayersCase::Activations actual(layers.shape, kLayersRowsMax);
    for (LayersCase::Activations* a : {&expected, &actual}) {
      layers.start(*a, 7);
      launch_fill_random(a->attention.data(), layers.rows * a->attention.width, 8, nullptr);
    }
    layers.run_one_by_one(expected, begin, end, nullptr);
    layers.run_at_once(actual, begin, end, nullptr);
    const std::int64_t rows = layers.rows;
    std::string what = std::to_string(rows) + " rows, " + std::to_string(lengths.size()) +
                       " sequences, steps " + std::to_string(begin) + " to " + std::to_string(end);
    EXPECT_EQ(count_different(actual.qkv, expected.qkv, rows), 0U) << what;
    EXPECT_EQ(count_different(actual.attention, expected.attention, rows), 0U) << what;
    EXPECT_EQ(count_different(actual.mlp, expected.mlp, rows), 0U) << what;
    EXPECT_EQ(count_different(actual.x, expected.x, rows), 0U) << what;
    for (const std::uint16_t bits : actual.x.host(rows)) {
      if ((bits & 0x7F80) == 0x7F80) GTEST_FAIL() << what << ": not finite";
    }
  }
};

// From RoPE on: the first step leaves v as only the kernel behind it does one by one.
TEST_F(Layers, OneLayerStepByStep) {
  LayersCase layers(kShape06B, 1);
  for (int end = 2; end <= kLayerSteps; ++end) compare(layers, {24}, 0, end);
}

// A case for each model and mix of lengths, so that a tool that slows each down can run them apart.
struct ModelShape {
  const char* name;
  const kernels::EncoderShape* shape;
};

void PrintTo(const ModelShape& model, std::ostream* out) { *out << model.name; }

using Lengths = std::vector<std::int32_t>;

class LayersOfMixes : public Layers,
                      public ::testing::WithParamInterface<std::tuple<ModelShape, Lengths>> {
 public:
  static std::string name_of(const ::testing::TestParamInfo<ParamType>& info) {
    const auto& [model, lengths] = info.param;
    return std::string(model.name) + "Rows" +
           std::to_string(std::accumulate(lengths.begin(), lengths.end(), 0)) + "Sequences" +
           std::to_string(lengths.size());
  }
};

TEST_P(LayersOfMixes, HaveTheBitsOfTheirKernels) {
  const auto& [model, lengths] = GetParam();
  LayersCase layers(*model.shape, 3);
  compare(layers, lengths, 0, layers.num_steps());
}

INSTANTIATE_TEST_SUITE_P(
    All, LayersOfMixes,
    ::testing::Combine(::testing::Values(ModelShape{"06B", &kShape06B}, ModelShape{"4B", &kShape4B},
                                         ModelShape{"8B", &kShape8B}),
                       ::testing::Values(Lengths{1}, Lengths{8}, Lengths{13}, Lengths{24},
                                         Lengths{3, 20, 0, 1}, Lengths{32}, Lengths{17, 31},
                                         Lengths{64}, Lengths{9, 0, 40, 15},
                                         Lengths{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, Lengths(30, 2))),
    LayersOfMixes::name_of);

// From after one layer's attention to before the next one's.
TEST_F(Layers, BetweenTwoAttentions) {
  LayersCase layers(kShape4B, 2);
  for (const std::int32_t rows : {5, 24, 50, 64}) {
    compare(layers, {rows}, static_cast<int>(LayerStep::kO),
            kLayerSteps + static_cast<int>(LayerStep::kAttention));
  }
}

TEST_F(Layers, TwiceTheSameBits) {
  LayersCase layers(kShape06B, 6);
  const std::vector<std::int32_t> lengths{20, 44};
  layers.set_lengths(lengths);
  LayersCase::Activations first(layers.shape, kLayersRowsMax);
  LayersCase::Activations second(layers.shape, kLayersRowsMax);
  layers.start(first, 1);
  layers.run_at_once(first, 0, layers.num_steps(), nullptr);
  for (int i = 0; i < 20; ++i) {
    layers.start(second, 1);
    layers.run_at_once(second, 0, layers.num_steps(), nullptr);
    EXPECT_EQ(first.x.host(layers.rows), second.x.host(layers.rows)) << i;
  }
}

// The blocks of a cluster get far out of step where the memory answers late.
TEST_F(Layers, SameBitsWhileTheMemoryIsBusy) {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  DeviceBuffer from(kBytes, "a test"), to(kBytes, "a test");
  const Stream busy = make_stream();
  const Stream own = make_stream();
  LayersCase layers(kShape4B, 4);
  for (const std::int32_t rows : {8, 24, 64}) {
    layers.set_lengths(std::vector<std::int32_t>{rows});
    LayersCase::Activations expected(layers.shape, kLayersRowsMax);
    LayersCase::Activations actual(layers.shape, kLayersRowsMax);
    layers.start(expected, 5);
    layers.run_one_by_one(expected, 0, layers.num_steps(), own.get());
    const auto bits = expected.x.host(rows);
    for (int i = 0; i < 30; ++i) {
      layers.start(actual, 5);
      for (int j = 0; j < 8; ++j) {
        cuda_check(
            cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, busy.get()));
      }
      layers.run_at_once(actual, 0, layers.num_steps(), own.get());
      ASSERT_EQ(actual.x.host(rows), bits) << rows << " rows, run " << i;
    }
  }
}

}  // namespace
}  // namespace tessera::testing
