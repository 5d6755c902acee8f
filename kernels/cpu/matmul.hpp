#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kernels/cpu/aligned_bytes.hpp"
#include "kernels/types.hpp"

namespace tessera::kernels::cpu {

// Widest panel, and most rows of one product: 256 x 512 floats of result stay in the L2 cache.
// Panels this narrow cost nothing: oneDNN 2.6.3 reaches 230 of 234 GFLOP/s (bf16, one Zen 4 core).
inline constexpr std::int64_t kPanelWidth = 512;
inline constexpr std::int64_t kProductRows = 256;
inline constexpr std::int64_t kFilledRowsMax = 64;  // of a product that is filled up with more rows

// Products of one shape: c[m, width] = a[m, cols] * panel^T for some numbers of rows m, of which
// all give a row the same bits.
class PanelShape;

// A few rows (output features) of a weight matrix, packed once as the library likes them.
struct Panel {
  std::int64_t row = 0;  // first output feature
  std::int64_t width = 0;
  const PanelShape* shape = nullptr;
  const std::byte* packed = nullptr;  // inside its weight's memory
};

// oneDNN behind five functions, and the only user of it. Products run on the calling thread alone.
// `pack` and `prepare` are for the start; `multiply` allocates nothing of size.
//
// The library picks how it cuts the summed dimension by the number of rows too (on AMX above 64
// rows, on AVX2 below 16), so the rows of a batch would round otherwise than alone. `prepare`
// therefore tries each number of rows on equal rows, and only those are used that give every row
// the bits that 64 rows give it.
class MatmulLibrary {
 public:
  // `type` is that of weights and inputs; results are float32, summed in float32. `members` threads
  // will multiply at the same time, each under its own number.
  MatmulLibrary(DType type, int members);
  ~MatmulLibrary();

  // Makes the products for a shape; the first call for one takes some milliseconds. Throws
  // FatalError where the library's sums depend on a row's place.
  const PanelShape* prepare(std::int64_t width, std::int64_t cols);
  // How many rows the product has that begins where `left` rows are left, at least 1: at most
  // kProductRows, and more than `left` only up to kFilledRowsMax.
  static std::int64_t rows_of_product(const PanelShape& shape, std::int64_t left);
  static std::size_t packed_bytes(const PanelShape& shape);
  // Packs plain rows [width, cols] to packed_bytes() of memory. Any thread, after `prepare`.
  Panel pack(const PanelShape* shape, std::int64_t row, const std::byte* plain,
             std::byte* packed) const;

  // c[m, panel.width] = a[m, cols] * panel^T, where m is what rows_of_product gives.
  void multiply(int member, const Panel& panel, const std::byte* a, std::int64_t m, float* c) const;

  static std::string version();

 private:
  void keep_agreeing(PanelShape& shape) const;

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera::kernels::cpu
