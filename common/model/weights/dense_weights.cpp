#include "common/model/weights/dense_weights.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "common/float16.hpp"
#include "common/model/weights/graph_tensors.hpp"

namespace tessera {
namespace {

template <typename T>
T element(const TensorView& tensor, std::size_t index) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

Result<std::vector<float>> to_float32(const TensorView& tensor, const std::string& name) {
  const std::size_t width = tensor.type == TensorType::kFloat32 ? 4 : 2;
  std::vector<float> values(tensor.bytes.size() / width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    switch (tensor.type) {
      case TensorType::kFloat32:
        values[i] = element<float>(tensor, i);
        break;
      case TensorType::kBFloat16:
        values[i] = std::bit_cast<float>(std::uint32_t{element<std::uint16_t>(tensor, i)} << 16);
        break;
      case TensorType::kFloat16:
        values[i] = from_float16(element<std::uint16_t>(tensor, i));
        break;
      case TensorType::kOther:
        return Error{ErrorCode::kInvalidArgument, name + " is none of BF16, F16 and F32"};
    }
    if (!std::isfinite(values[i])) {
      return Error{ErrorCode::kInvalidArgument,
                   name + " holds NaN or infinity; download the model again"};
    }
  }
  return values;
}

Result<DenseWeights> read_dense_weights(const VectorModule& dense) {
  auto folder = SafetensorsFolder::open(dense.dir);
  if (!folder) {
    return folder.error();
  }
  const std::string file = (dense.dir / "model.safetensors").string() + ": ";
  const auto refuse = [&](const std::string& why) {
    return Error{ErrorCode::kInvalidArgument, file + why};
  };
  DenseWeights weights;
  for (const auto& [name, tensor] : folder->tensors()) {
    const bool is_weight = name == "linear.weight";
    if (!is_weight && !(name == "linear.bias" && dense.bias)) {
      return refuse("tensor " + name.substr(0, 200) +
                    " is no part of the Dense module that its config.json describes");
    }
    const std::vector<std::int64_t> shape = is_weight
                                                ? std::vector{dense.out_features, dense.in_features}
                                                : std::vector{dense.out_features};
    if (tensor.shape != shape) {
      return refuse(name + " has shape " + shape_text(tensor.shape) +
                    ", its config.json asks for " + shape_text(shape));
    }
    auto values = to_float32(tensor, file + name);
    if (!values) {
      return values.error();
    }
    (is_weight ? weights.weight : weights.bias) = std::move(*values);
  }
  if (weights.weight.empty() || weights.bias.empty() == dense.bias) {
    return refuse(weights.weight.empty() ? "linear.weight is missing" : "linear.bias is missing");
  }
  return weights;
}

}  // namespace tessera
