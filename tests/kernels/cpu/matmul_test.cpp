#include "kernels/cpu/matmul.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/team.hpp"

namespace tessera::kernels::cpu {
namespace {

constexpr std::int64_t kRows = 300;

// Widths and inputs of panels in the demo model, in 0.6B, and 4B's down projection, whose sums are
// the longest but one.
struct Shape {
  std::int64_t width, cols;
};
constexpr Shape kShapes[] = {{256, 256},  {512, 256},  {384, 768}, {512, 1024},
                             {512, 2048}, {512, 3072}, {256, 9728}};

// One matrix and its rows, multiplied as the backend does.
class Products {
 public:
  Products(DType type, Shape shape)
      : shape_(shape),
        row_bytes_(static_cast<std::size_t>(shape.cols) * size_of(type)),
        library_(type, 1),
        panel_shape_(library_.prepare(shape.width, shape.cols)),
        plain_(random_values(shape.width * shape.cols, type, 1)),
        rows_(random_values(kRows * shape.cols, type, 2)),
        filled_(kFilledRowsMax * row_bytes_),
        product_(static_cast<std::size_t>(kProductRows * shape.width) * sizeof(float)),
        packed_(MatmulLibrary::packed_bytes(*panel_shape_)),
        panel_(library_.pack(panel_shape_, 0, plain_.data(), packed_.data())) {
    std::memset(filled_.data(), 0, filled_.size());
  }

  std::vector<float> multiply(std::int64_t first, std::int64_t rows) {
    std::vector<float> out;
    for (std::int64_t done = 0, count = 0; done < rows; done += count) {
      const std::int64_t computed = MatmulLibrary::rows_of_product(*panel_shape_, rows - done);
      EXPECT_LE(computed, kProductRows);
      count = std::min(computed, rows - done);
      const std::byte* from = rows_.data() + static_cast<std::size_t>(first + done) * row_bytes_;
      if (count < computed) {
        EXPECT_LE(computed, kFilledRowsMax);
        std::memcpy(filled_.data(), from, static_cast<std::size_t>(count) * row_bytes_);
        from = filled_.data();
      }
      library_.multiply(0, panel_, from, computed, product_.as<float>());
      out.insert(out.end(), product_.as<float>(), product_.as<float>() + count * shape_.width);
    }
    return out;
  }

  // In double precision.
  double expected(std::int64_t row, std::int64_t feature) const {
    double sum = 0;
    for (std::int64_t k = 0; k < shape_.cols; ++k) {
      sum += value(rows_, row * shape_.cols + k) * value(plain_, feature * shape_.cols + k);
    }
    return sum;
  }

 private:
  static AlignedBytes random_values(std::int64_t count, DType type, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    AlignedBytes bytes(static_cast<std::size_t>(count) * size_of(type));
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = normal(random);
      std::uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      if (type == DType::kBFloat16) {
        bytes.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(bits >> 16);
      } else {
        bytes.as<float>()[i] = value;
      }
    }
    return bytes;
  }
  double value(const AlignedBytes& bytes, std::int64_t i) const {
    if (row_bytes_ == static_cast<std::size_t>(shape_.cols) * sizeof(float)) {
      return bytes.as<float>()[i];
    }
    const std::uint32_t bits = std::uint32_t{bytes.as<std::uint16_t>()[i]} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

  const Shape shape_;
  const std::size_t row_bytes_;
  MatmulLibrary library_;
  const PanelShape* panel_shape_;
  AlignedBytes plain_, rows_, filled_, product_, packed_;
  Panel panel_;
};

class Matmul : public testing::TestWithParam<DType> {};

TEST_P(Matmul, ARowHasTheSameBitsAmongAnyOthers) {
  const char* isa = std::getenv("ONEDNN_MAX_CPU_ISA");
  const bool narrow = isa != nullptr && std::string_view(isa) == "AVX2";
  if (best_row_kernels(GetParam()).activation != GetParam() ||
      (narrow && GetParam() == DType::kBFloat16)) {
    GTEST_SKIP() << "such processors compute in float32";
  }
  Team team(1);  // As in the backend, whose threads keep the library from starting others.
  const Team::Job job = [](int) {
    std::mt19937 random(3);
    for (const Shape& shape : kShapes) {
      Products products(GetParam(), shape);
      const auto width = static_cast<std::size_t>(shape.width);
      const std::vector<float> all = products.multiply(0, kRows);
      for (int i = 0; i < 50; ++i) {
        const auto rows = static_cast<std::int64_t>(i < 20 ? i + 1 : random() % kRows + 1);
        const auto first = static_cast<std::int64_t>(random()) % (kRows - rows + 1);
        const std::vector<float> some = products.multiply(first, rows);
        EXPECT_EQ(0, std::memcmp(some.data(), all.data() + static_cast<std::size_t>(first) * width,
                                 some.size() * sizeof(float)))
            << shape.width << " by " << shape.cols << ", " << rows << " rows from " << first;
      }
      for (const std::int64_t row : {std::int64_t{0}, std::int64_t{77}, kRows - 1}) {
        EXPECT_NEAR(all[static_cast<std::size_t>(row) * width + width - 1],
                    products.expected(row, shape.width - 1), 1e-2);
      }
    }
  };
  team.run(job);
}

INSTANTIATE_TEST_SUITE_P(Types, Matmul, testing::Values(DType::kBFloat16, DType::kFloat32),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace tessera::kernels::cpu
