#include "worker/engine/vector_modules.hpp"

#include <algorithm>
#include <cmath>
#include <thread>

#include "common/check.hpp"

namespace tessera::worker {
namespace {

using Kind = VectorModule::Kind;

constexpr std::int64_t kRowsAtOnce = 8;  // They share each pass over the weights.
constexpr std::int64_t kRowsPerThread = 16;
constexpr std::int64_t kThreadsMax = 8;

// out[r] = bias + sum over i of in[r][i] * transposed[i]. Lanes are outputs, so wider registers add
// in the same order; products and sums are rounded apart on all processors (see CMakeLists.txt).
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
void multiply(const float* in, const float* transposed, float* out, std::int64_t rows,
              std::int64_t in_features, std::int64_t out_features) {
  for (std::int64_t i = 0; i < in_features; ++i) {
    const float* weights = transposed + i * out_features;
    for (std::int64_t r = 0; r < rows; ++r) {
      const float factor = in[r * in_features + i];
      float* to = out + r * out_features;
      for (std::int64_t o = 0; o < out_features; ++o) {
        to[o] += factor * weights[o];
      }
    }
  }
}

// `finite` becomes 0 where there is no direction: NaN, Inf or nothing but zeros.
void normalize(float* row, std::int64_t width, std::uint8_t& finite) {
  double squares = 0;
  for (std::int64_t i = 0; i < width; ++i) {
    squares += double{row[i]} * row[i];
  }
  const auto scale = static_cast<float>(1 / std::sqrt(squares));
  for (std::int64_t i = 0; i < width; ++i) {
    row[i] *= scale;
  }
  if (!(std::isfinite(squares) && squares > 0 && std::isfinite(scale))) {
    finite = 0;
  }
}

}  // namespace

VectorModules::VectorModules(const ModelFolder& folder)
    : in_features_(folder.config.hidden_size),
      out_features_(folder.embedding_size()),
      widest_(in_features_) {
  for (const VectorModule& module : folder.modules.modules) {
    Step& step = steps_.emplace_back(Step{.module = module, .transposed = {}, .bias = {}});
    if (module.kind != Kind::kDense) {
      continue;
    }
    auto weights = read_dense_weights(module);
    if (!weights) {
      throw FatalError(weights.error().message);
    }
    const auto in = static_cast<std::size_t>(module.in_features);
    const auto out = static_cast<std::size_t>(module.out_features);
    step.transposed.resize(in * out);
    for (std::size_t o = 0; o < out; ++o) {
      for (std::size_t i = 0; i < in; ++i) {
        step.transposed[i * out + o] = weights->weight[o * in + i];
      }
    }
    step.bias = weights->bias.empty() ? std::vector<float>(out) : std::move(weights->bias);
    widest_ = std::max(widest_, module.out_features);
  }
}

void VectorModules::apply(std::span<const float> rows, std::span<float> out,
                          std::span<std::uint8_t> finite) const {
  const auto count = static_cast<std::int64_t>(finite.size());
  CHECK(rows.size() == static_cast<std::size_t>(count * in_features_));
  CHECK(out.size() == static_cast<std::size_t>(count * out_features_));
  const std::int64_t cores = std::max(1U, std::thread::hardware_concurrency());
  const std::int64_t threads =
      std::clamp<std::int64_t>(count / kRowsPerThread, 1, std::min(cores, kThreadsMax));
  const auto share = [&](std::int64_t thread) {
    const std::int64_t begin = count * thread / threads;
    const std::int64_t end = count * (thread + 1) / threads;
    for (std::int64_t row = begin; row < end; row += kRowsAtOnce) {
      apply_some(rows.data() + row * in_features_, out.data() + row * out_features_,
                 finite.data() + row, std::min(kRowsAtOnce, end - row));
    }
  };
  std::vector<std::jthread> others;
  for (std::int64_t thread = 1; thread < threads; ++thread) {
    others.emplace_back(share, thread);
  }
  share(0);
}

void VectorModules::apply_some(const float* rows, float* out, std::uint8_t* finite,
                               std::int64_t count) const {
  std::vector<float> now(rows, rows + count * in_features_);
  std::vector<float> next(static_cast<std::size_t>(count * widest_));
  std::int64_t width = in_features_;
  for (const Step& step : steps_) {
    if (step.module.kind == Kind::kNormalize) {
      for (std::int64_t r = 0; r < count; ++r) {
        normalize(now.data() + r * width, width, finite[r]);
      }
      continue;
    }
    const std::int64_t to = step.module.out_features;
    next.resize(static_cast<std::size_t>(count * to));
    for (std::int64_t r = 0; r < count; ++r) {
      std::ranges::copy(step.bias, next.begin() + r * to);
    }
    multiply(now.data(), step.transposed.data(), next.data(), count, width, to);
    if (step.module.activation == Activation::kTanh) {
      for (float& value : next) {
        value = std::tanh(value);
      }
    }
    now.swap(next);
    width = to;
  }
  for (std::int64_t r = 0; r < count; ++r) {
    normalize(now.data() + r * width, width, finite[r]);
  }
  std::ranges::copy(now, out);
}

}  // namespace tessera::worker
