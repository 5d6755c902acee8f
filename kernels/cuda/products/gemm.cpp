#include "kernels/cuda/products/gemm.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kProposals = 16;

cublasLtHandle_t make_handle() {
  cublasLtHandle_t handle = nullptr;
  cublas_check(cublasLtCreate(&handle));
  return handle;
}

// Choices hold for one GPU model, driver and library.
std::string machine_line() {
  int device = 0;
  int driver = 0;
  cudaDeviceProp properties{};
  cuda_check(cudaGetDevice(&device));
  cuda_check(cudaGetDeviceProperties(&properties, device));
  cuda_check(cudaDriverGetVersion(&driver));
  return std::string(properties.name) + ", " + std::to_string(properties.multiProcessorCount) +
         " SMs, driver " + std::to_string(driver) + ", cublasLt " +
         std::to_string(cublasLtGetVersion());
}

bool is_sum(const Product& a) {
  CHECK(a.form != Product::Form::kSwiglu);
  return a.form == Product::Form::kAdd;
}

MatmulKey key_of(const Product& a) {
  return {.rows = rows_bucket(a.rows), .n = a.n, .k = a.k, .accumulate = is_sum(a)};
}

std::vector<std::int64_t> buckets_of(const Gemm::Tuning& tuning) {
  const std::int64_t last = rows_bucket(tuning.max_rows);
  std::vector<std::int64_t> buckets;
  for (std::int64_t rows = tuning.only_largest ? last : 1; rows <= last;
       rows = buckets.back() + 1) {
    buckets.push_back(rows_bucket(rows));
  }
  return buckets;
}

}  // namespace

// Row-major [rows, n] = [rows, k] * [n, k]^T is column-major [n, rows] = W^T * in with W stored
// [k, n] and in stored [k, rows], so no operand moves.
struct Gemm::Layouts {
  explicit Layouts(const Product& a) {
    const auto n = static_cast<std::uint64_t>(a.n);
    const auto k = static_cast<std::uint64_t>(a.k);
    const auto rows = static_cast<std::uint64_t>(a.rows);
    cublas_check(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transpose = CUBLAS_OP_T;
    cublas_check(cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                                sizeof transpose));
    cublas_check(cublasLtMatrixLayoutInit(&weight, CUDA_R_16BF, k, n, a.k));
    cublas_check(cublasLtMatrixLayoutInit(&in, CUDA_R_16BF, k, rows, a.k));
    cublas_check(cublasLtMatrixLayoutInit(&out, CUDA_R_16BF, n, rows, a.n));
  }
  cublasLtMatmulDescOpaque_t operation{};
  cublasLtMatrixLayoutOpaque_t weight{};
  cublasLtMatrixLayoutOpaque_t in{};
  cublasLtMatrixLayoutOpaque_t out{};
};

struct Gemm::Timed {
  float us = 0;
  cublasLtMatmulAlgo_t algorithm{};
};

Gemm::Gemm(const std::string& cache_path)
    : handle_(make_handle()),
      workspace_(kWorkspaceBytes, "the matrix products' workspace"),
      cache_(cache_path, machine_line(), sizeof(cublasLtMatmulAlgo_t)),
      started_(make_event(Timing::kOn)),
      stopped_(make_event(Timing::kOn)) {}

cublasStatus_t Gemm::run(const Product& a, const cublasLtMatmulAlgo_t& algorithm,
                         cudaStream_t stream) {
  Layouts layouts(a);
  const float alpha = 1;
  const float beta = is_sum(a) ? 1 : 0;
  return cublasLtMatmul(handle_.get(), &layouts.operation, &alpha, a.weight, &layouts.weight, a.in,
                        &layouts.in, &beta, a.out, &layouts.out, a.out, &layouts.out, &algorithm,
                        workspace_.data(), workspace_.bytes(), stream);
}

std::vector<cublasLtMatmulHeuristicResult_t> Gemm::proposals(const Product& a, int most) {
  Layouts layouts(a);
  cublasLtMatmulPreferenceOpaque_t preference{};
  cublas_check(cublasLtMatmulPreferenceInit(&preference));
  const std::size_t workspace = workspace_.bytes();
  cublas_check(cublasLtMatmulPreferenceSetAttribute(
      &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
  const std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE;
  cublas_check(cublasLtMatmulPreferenceSetAttribute(
      &preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
  int found = 0;
  cublas_check(cublasLtMatmulAlgoGetHeuristic(handle_.get(), &layouts.operation, &layouts.weight,
                                              &layouts.in, &layouts.out, &layouts.out, &preference,
                                              most, results.data(), &found));
  results.resize(static_cast<std::size_t>(found));
  std::erase_if(results, [](const auto& r) { return r.state != CUBLAS_STATUS_SUCCESS; });
  if (results.empty()) {
    cublas_check(CUBLAS_STATUS_NOT_SUPPORTED);
  }
  return results;
}

cublasLtMatmulAlgo_t Gemm::canonical(const Product& product) {
  Product many = product;
  many.rows = kCanonicalRows;
  return proposals(many, 1).front().algo;
}

const cublasLtMatmulAlgo_t& Gemm::choice(const Product& product) {
  const MatmulKey key = key_of(product);
  const auto known = choices_.find(key);
  if (known != choices_.end()) [[likely]] {
    return known->second;
  }
  cublasLtMatmulAlgo_t algorithm{};
  if (const AlgorithmCache::Algorithm* timed = cache_.find(key)) {
    std::memcpy(&algorithm, timed->data(), sizeof algorithm);
  } else {
    algorithm = canonical(product);
  }
  return choices_.emplace(key, algorithm).first->second;
}

void Gemm::multiply(const Product& product, cudaStream_t stream) {
  if (product.rows == 0) {
    return;
  }
  const cublasStatus_t status = run(product, choice(product), stream);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    // The bucket's choice does not take this very row count.
    cublas_check(run(product, canonical(product), stream));
    return;
  }
  cublas_check(status);
}

// The canonical result of the first rows of one product, and what `out` held before.
struct Gemm::BitCheck {
  static constexpr std::int64_t kRows = 64;
  BitCheck(std::int64_t n, const Bf16* out, cudaStream_t stream)
      : bytes(static_cast<std::size_t>(kRows * n) * sizeof(Bf16)),
        before(bytes, "timing products"),
        expected(bytes, "timing products"),
        different(sizeof(unsigned), "timing products") {
    cuda_check(cudaMemcpyAsync(before.data(), out, bytes, cudaMemcpyDeviceToDevice, stream));
  }
  std::size_t bytes;
  DeviceBuffer before;
  DeviceBuffer expected;
  DeviceBuffer different;
};

bool Gemm::same_bits(const Product& product, const cublasLtMatmulAlgo_t& algorithm, BitCheck& check,
                     cudaStream_t stream) {
  unsigned different = 0;
  cuda_check(cudaMemcpyAsync(product.out, check.before.data(), check.bytes,
                             cudaMemcpyDeviceToDevice, stream));
  if (run(product, algorithm, stream) != CUBLAS_STATUS_SUCCESS) {
    return false;
  }
  cuda_check(cudaMemsetAsync(check.different.data(), 0, sizeof different, stream));
  launch_count_different(check.different.as<unsigned>(), product.out, check.expected.as<Bf16>(),
                         std::min(product.rows, BitCheck::kRows) * product.n, stream);
  cuda_check(cudaMemcpyAsync(&different, check.different.data(), sizeof different,
                             cudaMemcpyDeviceToHost, stream));
  cuda_check(cudaStreamSynchronize(stream));
  return different == 0;
}

float Gemm::time_us(const Product& product, const cublasLtMatmulAlgo_t& algorithm, int runs,
                    cudaStream_t stream) {
  cuda_check(cudaEventRecord(started_.get(), stream));
  for (int i = 0; i < runs; ++i) {
    if (run(product, algorithm, stream) != CUBLAS_STATUS_SUCCESS) {
      return -1;
    }
  }
  cuda_check(cudaEventRecord(stopped_.get(), stream));
  return elapsed_ms(started_, stopped_) * 1000 / static_cast<float>(runs);
}

cublasLtMatmulAlgo_t Gemm::fastest(const Product& product, BitCheck& check, cudaStream_t stream) {
  std::vector<Timed> timed;
  for (const auto& proposal : proposals(product, kProposals)) {
    // This first run also loads the kernel's code; short products need more for a stable time.
    if (!same_bits(product, proposal.algo, check, stream)) {
      continue;
    }
    const float us = time_us(product, proposal.algo, product.rows <= 1024 ? 4 : 1, stream);
    timed.push_back({.us = us, .algorithm = proposal.algo});
  }
  if (timed.empty()) {
    return canonical(product);
  }
  std::ranges::sort(timed, {}, &Timed::us);
  // The leaders run again by turns, so that a drifting clock favours none.
  timed.resize(std::min<std::size_t>(timed.size(), 4));
  const int runs = product.rows <= 1024 ? 8 : 1;
  constexpr int kRounds = 5;
  std::vector<std::vector<float>> times(timed.size());
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < timed.size(); ++i) {
      times[i].push_back(time_us(product, timed[i].algorithm, runs, stream));
    }
  }
  for (std::size_t i = 0; i < timed.size(); ++i) {
    std::ranges::nth_element(times[i], times[i].begin() + kRounds / 2);
    timed[i].us = times[i][kRounds / 2];
  }
  return std::ranges::min_element(timed, {}, &Timed::us)->algorithm;
}

bool Gemm::is_tuned(const Tuning& t) const {
  return std::ranges::all_of(buckets_of(t), [&](std::int64_t rows) {
    return cache_.find({.rows = rows, .n = t.n, .k = t.k, .accumulate = t.accumulate}) != nullptr;
  });
}

void Gemm::tune(const Tuning& t, Bf16* out, const Bf16* in, cudaStream_t stream) {
  if (is_tuned(t)) {
    return;
  }
  Product product{.form = t.accumulate ? Product::Form::kAdd : Product::Form::kStore,
                  .out = out,
                  .in = in,
                  .weight = t.weight,
                  .rows = std::min(t.max_rows, BitCheck::kRows),
                  .n = t.n,
                  .k = t.k};
  BitCheck check(t.n, out, stream);
  cublas_check(run(product, canonical(product), stream));
  cuda_check(
      cudaMemcpyAsync(check.expected.data(), out, check.bytes, cudaMemcpyDeviceToDevice, stream));
  for (const std::int64_t rows : buckets_of(t)) {
    const MatmulKey key{.rows = rows, .n = t.n, .k = t.k, .accumulate = t.accumulate};
    if (cache_.find(key) != nullptr) {
      continue;
    }
    product.rows = std::min(rows, t.max_rows);
    const cublasLtMatmulAlgo_t algorithm = fastest(product, check, stream);
    const auto* bytes = reinterpret_cast<const std::byte*>(&algorithm);
    cache_.put(key, AlgorithmCache::Algorithm(bytes, bytes + sizeof algorithm));
    choices_[key] = algorithm;
  }
}

void Gemm::load(const Tuning& t, Bf16* out, const Bf16* in, cudaStream_t stream) {
  constexpr std::int64_t kRows = 16;
  for (const std::int64_t rows : buckets_of(t)) {
    Product product{.form = t.accumulate ? Product::Form::kAdd : Product::Form::kStore,
                    .out = out,
                    .in = in,
                    .weight = t.weight,
                    .rows = rows,
                    .n = t.n,
                    .k = t.k};
    const cublasLtMatmulAlgo_t& algorithm = choice(product);
    product.rows = std::min(rows, kRows);
    (void)run(product, algorithm, stream);  // not every algorithm takes few rows
  }
}

}  // namespace tessera::kernels::cuda
