#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/base/bf16.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/products/bf16_weight.hpp"
#include "kernels/cuda/products/fused_choice.hpp"
#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/products/product.hpp"
#include "kernels/cuda/products/weight_loader.hpp"

namespace tessera::kernels::cuda {

// The matrix products of one GPU and their weights. It loads the weights, times at start the ways
// through every product (cuBLASLt's, our own with work in its epilogue, our own of few rows) and
// then takes the fastest one for the rows at hand; all give the same bits. A number format of
// weights is a LinearWeight of its own, loaded and multiplied here and nowhere else. Owned by the
// thread of the device; everything is queued on `stream`.
class Products {
 public:
  Products(int device, const cudaDeviceProp& properties, cudaStream_t stream,
           const std::string& algorithm_cache);

  // What this takes beside the weights.
  static std::vector<MemoryTerm> memory(const BatchLimits& limits, const EncoderShape& shape);

  // start
  // `norm` [cols] float32 is that of the RMSNorm in front of the product, or null; it is multiplied
  // into the matrix by finish_loading.
  std::unique_ptr<LinearWeight> load(const LinearSource& source, std::unique_ptr<Buffer> norm);
  // The embedding table [vocab, hidden], as bf16.
  std::unique_ptr<Buffer> load_table(const MatrixSlice& source);
  void finish_loading();
  // Takes memory for batches within the limits, times the ways through the products of all weights
  // loaded, and brings the code of those that will be taken onto the device. Blocks.
  void prepare(const BatchLimits& limits, const EncoderShape& shape, const float* rope_table);

  // products: `rows` rows of `in` or `x`
  // out = in * W^T, or added to out.
  void linear(Bf16* out, const Bf16* in, LinearWeight& weight, std::int64_t rows, bool add);
  // Rows of a qkv weight, and what becomes of their product: num_q and num_k heads are normalised
  // and rotated, num_v behind them take the rows' scale.
  struct Heads {
    std::int64_t first_row = 0;
    std::int64_t width = 0;
    std::int64_t rows = 0;
    std::int64_t num_q = 0;
    std::int64_t num_k = 0;
    std::int64_t num_v = 0;
    const std::int32_t* positions = nullptr;  // [rows]
    const float* rope_table = nullptr;        // as launch_rope_table makes it
  };
  void heads(Bf16* out, const Bf16* x, LinearWeight& weight, const Heads& heads,
             const Backend::QkNormRope& options);
  // out = silu(norm(x) * G^T) * (norm(x) * U^T)
  void swiglu(Bf16* out, const Bf16* x, LinearWeight& weight, std::int64_t rows,
              const Backend::RowNorm& norm);

 private:
  WeightLoader& loader();
  void remember_shape(const Gemm::Tuning& tuning);
  const float* mean_squares(const Bf16* x, std::int64_t rows, std::int64_t hidden,
                            const Backend::RowNorm& norm);
  void multiply(const Product& product);

  // Timing, in products_timing.cpp.
  std::vector<Gemm::Tuning> tunings(const BatchLimits& limits, const EncoderShape& shape) const;
  void tune(const BatchLimits& limits, std::vector<Gemm::Tuning> all);
  void load_code(const std::vector<Gemm::Tuning>& products);
  void time_fused(const BatchLimits& limits, const EncoderShape& shape, const float* rope_table);
  void time_parted_sum(const Gemm::Tuning& shape);
  void time_sum(const FusedChoice::Shape& shape, const Product& probe,
                const FusedChoice::Run& ours);
  void time_fused_sum(const Gemm::Tuning& shape, const Product& probe);
  void time_fused_swiglu(const Gemm::Tuning& shape, const Product& probe);
  void time_fused_heads(const Gemm::Tuning& shape, const Product& probe,
                        const AttentionShape& heads, const float* rope_table);

  const int device_;
  const int compute_capability_;
  const int num_sms_;
  const cudaStream_t stream_;
  Gemm gemm_;
  FusedChoice fused_;
  std::unique_ptr<WeightLoader> loader_;  // while loading
  std::vector<Gemm::Tuning> to_tune_;     // one per shape of weight seen while loading
  struct Fold {
    Bf16Weight* weight;
    std::unique_ptr<Buffer> norm;  // [cols]
  };
  std::vector<Fold> folds_;                // norms to be multiplied into their weights
  std::unique_ptr<DeviceBuffer> gate_up_;  // [max_tokens, 2 * intermediate]
  std::unique_ptr<DeviceBuffer> squares_;  // [rows of a product], mean squares
};

}  // namespace tessera::kernels::cuda
