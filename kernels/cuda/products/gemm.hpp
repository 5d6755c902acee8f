#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/products/algorithm_cache.hpp"
#include "kernels/cuda/products/product.hpp"

namespace tessera::kernels::cuda {

// bf16 matrix products with float32 accumulation by cuBLASLt. Every algorithm taken for a shape
// gives the same bits, so a row's result does not depend on the number of rows: the first proposal
// for kCanonicalRows rows says what they are, and `tune` takes, for each bucket of rows, the
// fastest proposal that agrees with it bit for bit. On an H200 all proposals that do not split k
// and use the chip's own instructions agree; a sum (kAdd) rounds the product before it
// adds. Where nothing was timed, the canonical algorithm serves. Owned by the thread of the device
// that was current at construction; one stream at a time.
class Gemm {
 public:
  explicit Gemm(const std::string& cache_path);

  // kStore or kAdd.
  void multiply(const Product& product, cudaStream_t stream);

  // Times the proposals for every row bucket up to max_rows that the cache file does not know, on
  // this weight and on scratch given: `in` and `out` of max_rows rows, at least 64,
  // and saves the file. Blocks.
  struct Tuning {
    const Bf16* weight = nullptr;
    std::int64_t n = 0;
    std::int64_t k = 0;
    bool accumulate = false;
    std::int64_t max_rows = 0;
    bool only_largest = false;  // the bucket of max_rows alone
  };
  void tune(const Tuning& tuning, Bf16* out, const Bf16* in, cudaStream_t stream);
  // Whether the file knows all that `tune` would time.
  bool is_tuned(const Tuning& tuning) const;
  void save() { cache_.save(); }
  // Runs what `multiply` takes for each of these buckets once on a few rows (16 at most), so that
  // its code is on the device.
  void load(const Tuning& tuning, Bf16* out, const Bf16* in, cudaStream_t stream);

  static constexpr std::int64_t kCanonicalRows = 4096;
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

 private:
  struct HandleDeleter {
    void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
  };
  using Handle = std::unique_ptr<std::remove_pointer_t<cublasLtHandle_t>, HandleDeleter>;
  struct Layouts;
  struct Timed;
  struct BitCheck;

  cublasStatus_t run(const Product& product, const cublasLtMatmulAlgo_t& algorithm,
                     cudaStream_t stream);
  std::vector<cublasLtMatmulHeuristicResult_t> proposals(const Product& product, int most);
  const cublasLtMatmulAlgo_t& choice(const Product& product);
  cublasLtMatmulAlgo_t canonical(const Product& product);
  cublasLtMatmulAlgo_t fastest(const Product& product, BitCheck& check, cudaStream_t stream);
  bool same_bits(const Product& product, const cublasLtMatmulAlgo_t& algorithm, BitCheck& check,
                 cudaStream_t stream);
  float time_us(const Product& product, const cublasLtMatmulAlgo_t& algorithm, int runs,
                cudaStream_t stream);

  Handle handle_;
  DeviceBuffer workspace_;
  AlgorithmCache cache_;
  std::map<MatmulKey, cublasLtMatmulAlgo_t> choices_;
  Event started_;
  Event stopped_;
};

}  // namespace tessera::kernels::cuda
