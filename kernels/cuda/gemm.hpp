#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

#include "kernels/cuda/algorithm_cache.hpp"
#include "kernels/cuda/resources.hpp"

namespace tessera::kernels::cuda {

struct MatmulArguments {
  __nv_bfloat16* out = nullptr;           // [rows, n]
  const __nv_bfloat16* in = nullptr;      // [rows, k]
  const __nv_bfloat16* weight = nullptr;  // [n, k]
  std::int64_t rows = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool accumulate = false;  // out += in * W^T, rounded once, instead of out =
};

// bf16 matrix products with float32 accumulation by cuBLASLt. The algorithm of each (bucket of
// rows, n, k) is the fastest of cuBLASLt's proposals as timed by `tune`, or its first proposal
// where none was timed. Only algorithms that sum over k in one piece are taken: they all add in the
// same order, so a row's result has the same bits whatever the number of rows and the choice
// (measured on an H200: every such proposal agrees, every one that splits k does not). Owned by the
// thread of the device that was current at construction; one stream at a time.
class Gemm {
 public:
  explicit Gemm(const std::string& cache_path);

  void multiply(const MatmulArguments& arguments, cudaStream_t stream);

  // Times the proposals for every row bucket up to max_rows that the cache file does not know, on
  // this weight and on the scratch rows given (at least max_rows * n and max_rows * k elements),
  // and saves the file. Blocks.
  struct Tuning {
    const __nv_bfloat16* weight = nullptr;
    std::int64_t n = 0;
    std::int64_t k = 0;
    bool accumulate = false;
    std::int64_t max_rows = 0;
    bool only_largest = false;  // the bucket of max_rows alone
  };
  void tune(const Tuning& tuning, __nv_bfloat16* out, const __nv_bfloat16* in, cudaStream_t stream);
  // What `tune` would have to time; none when all of it came from the file.
  bool is_tuned(const Tuning& tuning) const;
  void save() { cache_.save(); }

  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

 private:
  struct HandleDeleter {
    void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
  };
  using Handle = std::unique_ptr<std::remove_pointer_t<cublasLtHandle_t>, HandleDeleter>;
  struct Layouts;
  struct Timed;

  cublasStatus_t run(const MatmulArguments& arguments, const cublasLtMatmulAlgo_t& algorithm,
                     cudaStream_t stream);
  std::vector<cublasLtMatmulHeuristicResult_t> proposals(const MatmulArguments& arguments,
                                                         int most);
  const cublasLtMatmulAlgo_t& choice(const MatmulArguments& arguments);
  cublasLtMatmulAlgo_t fastest(const MatmulArguments& arguments, cudaStream_t stream);
  float time_us(const MatmulArguments& arguments, const cublasLtMatmulAlgo_t& algorithm, int runs,
                cudaStream_t stream);

  Handle handle_;
  DeviceBuffer workspace_;
  AlgorithmCache cache_;
  std::map<MatmulKey, cublasLtMatmulAlgo_t> choices_;
  Event started_;
  Event stopped_;
};

}  // namespace tessera::kernels::cuda
