#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"
#include "tests/kernels/gpu.hpp"
#include "tests/support/operation_reference.hpp"

namespace tessera::testing {
namespace {

using namespace kernels::cuda;  // what is tested
using Form = Product::Form;

// Few-row products against cuBLASLt's and the kernel behind it, bit for bit.
class SmallGemm : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!has_gpu()) return;
    cuda_check(cudaGetDeviceProperties(&properties_, 0));
    if (properties_.major != 9) GTEST_SKIP() << "for Hopper";
    gemm_ = std::make_unique<Gemm>("/dev/null");
  }

  // `out` in and out.
  std::vector<std::uint16_t> run(Form form, std::vector<std::uint16_t> before, std::int64_t n,
                                 std::int64_t k, std::int64_t rows) {
    const std::int64_t width = form == Form::kSwiglu ? n / 2 : n;
    before.resize(static_cast<std::size_t>((rows + 1) * width), 0xFFFF);
    DeviceArray<std::uint16_t> out(before);
    launch_small_gemm({.form = form,
                       .out = out.data<Bf16>(),
                       .in = in_->data<Bf16>(),
                       .weight = weight_->data<Bf16>(),
                       .mean_squares = squares_->data(),
                       .rows = rows,
                       .n = n,
                       .k = k},
                      properties_.multiProcessorCount, nullptr);
    return out.host();
  }

  std::vector<std::uint16_t> expected(Form form, std::vector<std::uint16_t> before, std::int64_t n,
                                      std::int64_t k, std::int64_t rows) {
    const std::int64_t width = form == Form::kSwiglu ? n / 2 : n;
    before.resize(static_cast<std::size_t>(rows * n), 0xFFFF);
    DeviceArray<std::uint16_t> product(before);
    gemm_->multiply({.form = form == Form::kAdd ? Form::kAdd : Form::kStore,
                     .out = product.data<Bf16>(),
                     .in = in_->data<Bf16>(),
                     .weight = weight_->data<Bf16>(),
                     .rows = rows,
                     .n = n,
                     .k = k},
                    nullptr);
    DeviceArray<std::uint16_t> gated(static_cast<std::size_t>((rows + 1) * width));
    if (form == Form::kSwiglu) {
      launch_swiglu(gated.data<Bf16>(), product.data<Bf16>(), squares_->data(), rows, width,
                    nullptr);
    }
    std::vector<std::uint16_t> values = form == Form::kSwiglu ? gated.host() : product.host();
    values.resize(static_cast<std::size_t>((rows + 1) * width), 0xFFFF);
    return values;
  }

  cudaDeviceProp properties_{};
  std::unique_ptr<Gemm> gemm_;
  std::unique_ptr<DeviceArray<std::uint16_t>> in_, weight_;
  std::unique_ptr<DeviceArray<float>> squares_;
};

TEST_F(SmallGemm, HasTheBitsOfALargeProduct) {
  std::vector<float> squares;
  for (int i = 0; i < 128; ++i) squares.push_back(0.5F + 0.03F * static_cast<float>(i));
  squares_ = std::make_unique<DeviceArray<float>>(squares);
  for (const auto& [n, k] : {std::pair{2560, 9728},
                             {2560, 4096},
                             {6144, 2560},
                             {19456, 2560},
                             {1024, 3072},
                             {4096, 1024},
                             {1536, 256},
                             {512, 512},
                             {272, 768}}) {
    weight_ = std::make_unique<DeviceArray<std::uint16_t>>(
        random_bf16(static_cast<std::size_t>(n) * static_cast<std::size_t>(k), 1, 0.05F));
    in_ = std::make_unique<DeviceArray<std::uint16_t>>(
        random_bf16(128 * static_cast<std::size_t>(k), 2));
    const std::vector<std::uint16_t> before = random_bf16(128 * static_cast<std::size_t>(n), 3);
    for (const int rows : {1, 8, 13, 24, 32, 33, 64, 65, 100, 128}) {
      for (const Form form : {Form::kStore, Form::kAdd, Form::kSwiglu}) {
        std::vector<std::uint16_t> start(before.begin(), before.begin() + rows * n);
        if (form == Form::kSwiglu) start.resize(static_cast<std::size_t>(rows * n / 2));
        ASSERT_TRUE(parted_gemm_supports(90, rows, n, k));
        ASSERT_EQ(small_gemm_supports(90, rows, n, k), rows <= kSmallGemmRowsMax);
        const auto actual = run(form, start, n, k, rows);
        const auto wanted = expected(form, start, n, k, rows);
        std::size_t different = 0;
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          // A sum of exactly zero may have either sign.
          different += actual[i] != wanted[i] && ((actual[i] | wanted[i]) & 0x7FFF) != 0 ? 1 : 0;
        }
        EXPECT_EQ(different, 0U) << n << " x " << k << ", " << rows << " rows, form "
                                 << static_cast<int>(form);
      }
    }
  }
}

}  // namespace
}  // namespace tessera::testing
