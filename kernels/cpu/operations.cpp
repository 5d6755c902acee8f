// What a member of the team does for each operation, over its own rows.

#include <algorithm>
#include <cstring>

#include "common/check.hpp"
#include "kernels/cpu/cpu_backend.hpp"

namespace tessera::kernels::cpu {
namespace {

std::byte* bytes_of(Buffer& buffer) { return static_cast<std::byte*>(buffer.data()); }
float* floats_of(Buffer& buffer) { return static_cast<float*>(buffer.data()); }
const CpuLinearWeight& packed(LinearWeight& weight) {
  return static_cast<const CpuLinearWeight&>(weight);
}

constexpr auto kAllPanels = [](const Panel&) { return true; };

}  // namespace

CpuBackend::Range CpuBackend::range(const CpuBatchSlot& slot, int member, std::int64_t rows) {
  const Share& share = slot.share(member);
  if (rows == slot.total_tokens()) {
    return {share.token_begin, share.token_end};
  }
  CHECK(rows == slot.num_sequences());
  return {share.sequence_begin, share.sequence_end};
}

std::byte* CpuBackend::row(std::byte* data, std::int64_t index, std::int64_t width) const {
  return data + static_cast<std::size_t>(index * width) * size_of(rows_.activation);
}

// Panel by panel, so that one stays in the cache for all of the rows; `epilogue` gets each product
// (panel, first row, rows, values) while it is still there. Which rows share a product changes with
// the batch and the number of threads, and no row's bits with it: see MatmulLibrary.
template <typename Use, typename Epilogue>
void CpuBackend::multiply(int member, const CpuLinearWeight& weight, const std::byte* in,
                          Range rows, Use use, Epilogue epilogue) {
  Scratch& scratch = scratch_[static_cast<std::size_t>(member)];
  auto* product = scratch.product.as<float>();
  auto* input = const_cast<std::byte*>(in);
  std::int64_t filled = -1;  // first of the rows that lie in scratch.tail
  for (const Panel& panel : weight.panels()) {
    if (!use(panel)) {
      continue;
    }
    std::int64_t count = 0;
    for (std::int64_t first = rows.begin; first < rows.end; first += count) {
      const std::int64_t computed = MatmulLibrary::rows_of_product(*panel.shape, rows.end - first);
      count = std::min(computed, rows.end - first);
      const std::byte* from = row(input, first, weight.cols());
      if (count < computed) {
        if (filled != first) {
          std::memcpy(scratch.tail.data(), from,
                      static_cast<std::size_t>(count * weight.cols()) * size_of(rows_.activation));
          filled = first;
        }
        from = scratch.tail.data();
      }
      matmul_.multiply(member, panel, from, computed, product);
      epilogue(panel, first, count, product);
    }
  }
}

void CpuBackend::embed(Buffer& x, Buffer& table, BatchSlot&, std::int64_t hidden) {
  CpuBatchSlot& slot = recording();
  slot.record([this, &slot, to = floats_of(x), from = bytes_of(table), hidden](int member) {
    const Share& share = slot.share(member);
    for (std::int64_t t = share.token_begin; t < share.token_end; ++t) {
      rows_.embed(to + t * hidden, row(from, slot.id(t), hidden), rows_.activation, hidden);
    }
  });
}

// What a projection multiplies: the rows of x by the norm of its weight.
std::byte* CpuBackend::norm_rows(Buffer& x, const CpuLinearWeight& weight, std::int64_t rows,
                                 float eps) {
  CpuBatchSlot& slot = recording();
  CHECK(weight.norm() != nullptr);
  std::byte* to = (rows == slot.total_tokens() ? normed_ : normed_last_).data();
  slot.record([this, &slot, to, from = floats_of(x), w = weight.norm(), rows,
               hidden = weight.cols(), eps](int member) {
    const Range mine = range(slot, member, rows);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
      rows_.rms_norm(row(to, i, hidden), from + i * hidden, w, hidden, eps);
    }
  });
  return to;
}

struct CpuBackend::Heads {
  std::byte* out = nullptr;
  const std::byte* in = nullptr;
  const CpuLinearWeight& weight;
  std::int64_t rows = 0;
  bool last_positions = false;  // rows are sequences, at their last positions
  // Output features [first, end) of q | k | v; column 0 of `out` is feature `first`.
  std::int64_t first = 0, end = 0;
  std::int64_t k_begin = 0, v_begin = 0;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  const float* rope = nullptr;
  float eps = 0;
};

void CpuBackend::project_heads(const Heads& heads) {
  CpuBatchSlot& slot = recording();
  slot.record([this, &slot, h = heads](int member) {
    const std::int64_t width = h.end - h.first;
    const auto position = [&](std::int64_t i) {
      return h.last_positions ? slot.seqlen(i) - 1 : slot.position(i);
    };
    const auto in_range = [&](const Panel& p) { return p.row >= h.first && p.row < h.end; };
    multiply(member, h.weight, h.in, range(slot, member, h.rows), in_range,
             [&](const Panel& panel, std::int64_t first, std::int64_t count, const float* c) {
               for (std::int64_t r = 0; r < count; ++r) {
                 const float* rotation = h.rope + position(first + r) * kHeadDim;
                 std::byte* to = row(h.out, first + r, width);
                 for (std::int64_t i = 0; i < panel.width; i += kHeadDim, c += kHeadDim) {
                   const std::int64_t feature = panel.row + i;
                   std::byte* head = row(to, feature - h.first, 1);
                   if (feature >= h.v_begin) {
                     rows_.store(head, c, kHeadDim);
                   } else {
                     const float* norm = feature < h.k_begin ? h.q_norm : h.k_norm;
                     rows_.norm_rope(head, c, norm, rotation, h.eps);
                   }
                 }
               }
             });
  });
}

void CpuBackend::qkv_projection(Buffer& qkv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                                const AttentionShape& shape, const QkNormRope& options) {
  project_heads({.out = bytes_of(qkv),
                 .in = norm_rows(x, packed(weight), slot.total_tokens(), options.norm.eps),
                 .weight = packed(weight),
                 .rows = slot.total_tokens(),
                 .first = 0,
                 .end = shape.qkv_width(),
                 .k_begin = shape.q_width(),
                 .v_begin = shape.q_width() + shape.kv_width(),
                 .q_norm = floats_of(*options.q_norm),
                 .k_norm = floats_of(*options.k_norm),
                 .rope = rope_table(options.rope_theta),
                 .eps = options.norm.eps});
}

void CpuBackend::kv_projection(Buffer& kv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                               const AttentionShape& shape, const QkNormRope& options) {
  // From here on buffers hold rows of other widths, or of sequences: others must be done with them.
  recording().record([this](int) { team_.meet(); });
  project_heads({.out = bytes_of(kv),
                 .in = norm_rows(x, packed(weight), slot.total_tokens(), options.norm.eps),
                 .weight = packed(weight),
                 .rows = slot.total_tokens(),
                 .first = shape.q_width(),
                 .end = shape.qkv_width(),
                 .k_begin = shape.q_width(),
                 .v_begin = shape.q_width() + shape.kv_width(),
                 .q_norm = nullptr,
                 .k_norm = floats_of(*options.k_norm),
                 .rope = rope_table(options.rope_theta),
                 .eps = options.norm.eps});
}

void CpuBackend::last_q_projection(Buffer& q, Buffer& x_last, LinearWeight& weight, BatchSlot& slot,
                                   const AttentionShape& shape, const QkNormRope& options) {
  project_heads({.out = bytes_of(q),
                 .in = norm_rows(x_last, packed(weight), slot.num_sequences(), options.norm.eps),
                 .weight = packed(weight),
                 .rows = slot.num_sequences(),
                 .last_positions = true,
                 .first = 0,
                 .end = shape.q_width(),
                 .k_begin = shape.q_width(),
                 .v_begin = shape.q_width(),
                 .q_norm = floats_of(*options.q_norm),
                 .k_norm = nullptr,
                 .rope = rope_table(options.rope_theta),
                 .eps = options.norm.eps});
}

struct CpuBackend::HeadRows {
  std::byte* out = nullptr;
  std::byte* q = nullptr;
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  std::int64_t out_width = 0, q_width = 0, kv_width = 0;  // of whole rows
  std::int64_t group = 1;                                 // query heads per kv head
  bool last_only = false;                                 // q and out have one row per sequence
};

void CpuBackend::run_attention(int member, const HeadRows& h, const CpuBatchSlot& slot,
                               const SharedTask& task) {
  Scratch& scratch = scratch_[static_cast<std::size_t>(member)];
  const PackedHead head{.keys = scratch.keys.as<std::uint32_t>(),
                        .values = scratch.values.as<std::uint32_t>()};
  const std::int64_t token = slot.first_token(task.sequence);
  const auto at = [&](std::byte* data, std::int64_t r, std::int64_t width, std::int64_t column) {
    return row(row(data, r, width), column, 1);
  };
  rows_.pack_head(head, at(h.k, token, h.kv_width, task.kv_head * kHeadDim),
                  at(h.v, token, h.kv_width, task.kv_head * kHeadDim), h.kv_width, task.last);
  for (std::int64_t g = 0; g < h.group; ++g) {
    const std::int64_t column = (task.kv_head * h.group + g) * kHeadDim;
    for (std::int64_t p = task.first; p < task.last; p += kTileRows) {
      const std::int64_t r = h.last_only ? task.sequence : token + p;
      rows_.attend({.q = at(h.q, r, h.q_width, column),
                    .out = at(h.out, r, h.out_width, column),
                    .q_stride = h.q_width,
                    .out_stride = h.out_width,
                    .rows = std::min(kTileRows, task.last - p),
                    .position = p,
                    .head = head});
    }
  }
}

void CpuBackend::attention(Buffer& out, Buffer& qkv, Buffer* gathered, BatchSlot&,
                           const AttentionShape& shape) {
  CHECK(gathered == nullptr);  // begin() refused segments.
  CpuBatchSlot& slot = recording();
  const HeadRows rows{.out = bytes_of(out),
                      .q = bytes_of(qkv),
                      .k = row(bytes_of(qkv), shape.q_width(), 1),
                      .v = row(bytes_of(qkv), shape.q_width() + shape.kv_width(), 1),
                      .out_width = shape.q_width(),
                      .q_width = shape.qkv_width(),
                      .kv_width = shape.qkv_width(),
                      .group = shape.num_q_heads / shape.num_kv_heads};
  auto& counter = slot.new_counter();
  slot.record([this, &slot, &counter, rows, heads = shape.num_kv_heads](int member) {
    const Share& share = slot.share(member);
    if (slot.has_cut()) {
      team_.meet();  // All keys and values of cut sequences are there.
    }
    for (std::int64_t i = share.whole_begin; i < share.whole_end; ++i) {
      for (std::int64_t head = 0; head < heads; ++head) {
        run_attention(member, rows, slot,
                      {.sequence = i, .kv_head = head, .first = 0, .last = slot.seqlen(i)});
      }
    }
    const auto tasks = slot.shared_tasks();
    for (std::size_t i = counter++; i < tasks.size(); i = counter++) {
      run_attention(member, rows, slot, tasks[i]);
    }
    if (slot.has_cut()) {
      team_.meet();  // Nobody reads these keys any more; all outputs are there.
    }
  });
}

void CpuBackend::last_attention(Buffer& out, Buffer& q, Buffer& kv, BatchSlot&,
                                const AttentionShape& shape) {
  CpuBatchSlot& slot = recording();
  const HeadRows rows{.out = bytes_of(out),
                      .q = bytes_of(q),
                      .k = bytes_of(kv),
                      .v = row(bytes_of(kv), shape.kv_width(), 1),
                      .out_width = shape.q_width(),
                      .q_width = shape.q_width(),
                      .kv_width = 2 * shape.kv_width(),
                      .group = shape.num_q_heads / shape.num_kv_heads,
                      .last_only = true};
  slot.record([this, &slot, rows, heads = shape.num_kv_heads](int member) {
    const Share& share = slot.share(member);
    if (slot.has_cut()) {
      team_.meet();  // All keys and values of cut sequences are there.
    }
    for (std::int64_t i = share.sequence_begin; i < share.sequence_end; ++i) {
      for (std::int64_t head = 0; head < heads; ++head) {
        run_attention(
            member, rows, slot,
            {.sequence = i, .kv_head = head, .first = slot.seqlen(i) - 1, .last = slot.seqlen(i)});
      }
    }
  });
}

void CpuBackend::gather_last(Buffer& out, Buffer& x, BatchSlot&, std::int64_t width) {
  CpuBatchSlot& slot = recording();
  const std::size_t row_bytes = static_cast<std::size_t>(width) * size_of(residual_type());
  slot.record([&slot, to = bytes_of(out), from = bytes_of(x), row_bytes](int member) {
    const Share& share = slot.share(member);
    for (std::int64_t i = share.sequence_begin; i < share.sequence_end; ++i) {
      const auto last = static_cast<std::size_t>(slot.first_token(i + 1) - 1);
      std::memcpy(to + static_cast<std::size_t>(i) * row_bytes, from + last * row_bytes, row_bytes);
    }
  });
}

void CpuBackend::linear(Buffer& out, Buffer& in, LinearWeight& weight, std::int64_t rows) {
  CpuBatchSlot& slot = recording();
  slot.record([this, &slot, to = bytes_of(out), from = bytes_of(in), &w = packed(weight),
               rows](int member) {
    multiply(member, w, from, range(slot, member, rows), kAllPanels,
             [&](const Panel& panel, std::int64_t first, std::int64_t count, const float* c) {
               for (std::int64_t r = 0; r < count; ++r) {
                 rows_.store(row(row(to, first + r, w.rows()), panel.row, 1), c + r * panel.width,
                             panel.width);
               }
             });
  });
}

void CpuBackend::linear_add(Buffer& x, Buffer& in, LinearWeight& weight, std::int64_t rows) {
  CpuBatchSlot& slot = recording();
  slot.record(
      [this, &slot, to = floats_of(x), from = bytes_of(in), &w = packed(weight), rows](int member) {
        multiply(member, w, from, range(slot, member, rows), kAllPanels,
                 [&](const Panel& panel, std::int64_t first, std::int64_t count, const float* c) {
                   for (std::int64_t r = 0; r < count; ++r) {
                     rows_.add(to + (first + r) * w.rows() + panel.row, c + r * panel.width,
                               panel.width);
                   }
                 });
      });
}

void CpuBackend::swiglu_projection(Buffer& out, Buffer& x, LinearWeight& weight, std::int64_t rows,
                                   const RowNorm& norm) {
  CpuBatchSlot& slot = recording();
  const std::byte* normed = norm_rows(x, packed(weight), rows, norm.eps);
  slot.record(
      [this, &slot, to = bytes_of(out), from = normed, &w = packed(weight), rows](int member) {
        multiply(member, w, from, range(slot, member, rows), kAllPanels,
                 [&](const Panel& panel, std::int64_t first, std::int64_t count, const float* c) {
                   const std::int64_t half = panel.width / 2;
                   for (std::int64_t r = 0; r < count; ++r, c += panel.width) {
                     rows_.swiglu(row(row(to, first + r, w.rows() / 2), panel.row, 1), c, c + half,
                                  half);
                   }
                 });
      });
}

void CpuBackend::host_task(std::function<void()> task) {
  recording().record([this, task = std::move(task)](int member) {
    team_.meet();
    if (member == 0) {
      task();
    }
    team_.meet();
  });
}

void CpuBackend::pool(BatchSlot&, Buffer& x_last, Buffer& norm_weight, std::int64_t hidden,
                      float eps, Length length) {
  CpuBatchSlot& slot = recording();
  slot.record([this, &slot, from = floats_of(x_last), w = floats_of(norm_weight), hidden, eps,
               unit = length == Length::kUnit](int member) {
    const Share& share = slot.share(member);
    for (std::int64_t i = share.sequence_begin; i < share.sequence_end; ++i) {
      slot.finite_flag(i) = rows_.pool(slot.vector(i), from + i * hidden, w, hidden, eps, unit);
    }
  });
}

}  // namespace tessera::kernels::cpu
