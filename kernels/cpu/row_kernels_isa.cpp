// Compiled once per instruction set, with TESSERA_ISA naming the set (kernels/cpu/CMakeLists.txt).

#include "kernels/cpu/attention_tile.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/simd.hpp"

#define TESSERA_TEXT_OF(name) #name
#define TESSERA_TEXT(name) TESSERA_TEXT_OF(name)

namespace tessera::kernels::cpu {
namespace {

// Widths are multiples of 16 (ModelConfig checks 32), so rows have no tail.

void embed(float* x, const void* row, DType type, std::int64_t width) {
  if (type == DType::kFloat32) {
    std::memcpy(x, row, (std::size_t)width * sizeof(float));
    return;
  }
  const auto* from = static_cast<const std::uint16_t*>(row);
  for (std::int64_t i = 0; i < width; i += kLanes) {
    store(x + i, load_bf16(from + i));
  }
}

TESSERA_INLINE float sum_of_squares(const float* x, std::int64_t width) {
  Floats total{};
  for (std::int64_t i = 0; i < width; i += kLanes) {
    const Floats v = load(x + i);
    total += v * v;
  }
  return sum(total);
}

void rms_norm(void* out, const float* x, const float* weight, std::int64_t width, float eps) {
  auto* to = static_cast<Activation*>(out);
  const Floats scale =
      broadcast(reciprocal_sqrt(sum_of_squares(x, width) / static_cast<float>(width) + eps));
  for (std::int64_t i = 0; i < width; i += kLanes) {
    store_activation(to + i, load(x + i) * scale * load(weight + i));
  }
}

void norm_rope(void* out, const float* head, const float* weight, const float* cos_sin, float eps) {
  constexpr std::int64_t kHalf = kHeadDim / 2;
  auto* to = static_cast<Activation*>(out);
  const Floats scale =
      broadcast(reciprocal_sqrt(sum_of_squares(head, kHeadDim) / (float)kHeadDim + eps));
  for (std::int64_t i = 0; i < kHalf; i += kLanes) {
    const Floats low = load(head + i) * scale * load(weight + i);
    const Floats high = load(head + kHalf + i) * scale * load(weight + kHalf + i);
    const Floats cosine = load(cos_sin + i), sine = load(cos_sin + kHalf + i);
    store_activation(to + i, low * cosine - high * sine);
    store_activation(to + kHalf + i, high * cosine + low * sine);
  }
}

void store_row(void* out, const float* in, std::int64_t width) {
  auto* to = static_cast<Activation*>(out);
  for (std::int64_t i = 0; i < width; i += kLanes) {
    store_activation(to + i, load(in + i));
  }
}

void add_row(float* x, const float* in, std::int64_t width) {
  for (std::int64_t i = 0; i < width; i += kLanes) {
    store(x + i, load(x + i) + load(in + i));
  }
}

void swiglu(void* out, const float* gate, const float* up, std::int64_t width) {
  constexpr float kLog2E = 1.44269504F;
  auto* to = static_cast<Activation*>(out);
  for (std::int64_t i = 0; i < width; i += kLanes) {
    const Floats g = load(gate + i);
    const Floats sigmoid = 1.0F / (1.0F + exp2(g * -kLog2E));
    // exp2 ends at 2^126; below that the true value is nothing, and a NaN must stay one.
    const Floats gated = select(g < -87.0F, Floats{}, g) * sigmoid;
    store_activation(to + i, gated * load(up + i));
  }
}

std::uint8_t pool(float* out, const float* x, const float* weight, std::int64_t width, float eps,
                  bool unit) {
  const Floats scale =
      broadcast(reciprocal_sqrt(sum_of_squares(x, width) / static_cast<float>(width) + eps));
  for (std::int64_t i = 0; i < width; i += kLanes) {
    store(out + i, load(x + i) * scale * load(weight + i));
  }
  const float squares = sum_of_squares(out, width);
  const Floats inverse = broadcast(reciprocal_sqrt(squares));
  for (std::int64_t i = 0; unit && i < width; i += kLanes) {
    store(out + i, load(out + i) * inverse);
  }
  // NaN and Inf in any element reach the sum; neither compares as inside the range.
  return squares > 0.0F && squares < 3.0e38F ? 1 : 0;
}

}  // namespace

extern const RowKernels TESSERA_ISA;
const RowKernels TESSERA_ISA = {
    .name = TESSERA_TEXT(TESSERA_ISA_NAME),
    .activation = kWordElements == 2 ? DType::kBFloat16 : DType::kFloat32,
    .embed = embed,
    .rms_norm = rms_norm,
    .norm_rope = norm_rope,
    .store = store_row,
    .add = add_row,
    .swiglu = swiglu,
    .pool = pool,
    .pack_head = pack_head,
    .attend = attend,
};

}  // namespace tessera::kernels::cpu
