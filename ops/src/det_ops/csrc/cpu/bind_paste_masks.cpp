// Masks of regions pasted into the image, for CPU tensors. Letters: n masks, S side of a mask, h w image size.
//
// Bitmaps are written row by row, codes column by column, inside the boxes only. Lines of the image that cross the same
// cells of a mask are worked through together: where cells are full or empty, and what the others read, is the same.
#include <cstring>
#include <string>

#include "kernels.h"
#include "paste_plan.h"
#include "tensors.h"

namespace det {
namespace {

// The lines of a plan: rows, or columns if `kDown`.
template <class T, bool kDown>
class Lines {
 public:
  explicit Lines(const PastePlan<T>& plan)
      : plan_(plan), along_(kDown ? plan.y : plan.x), across_(kDown ? plan.x : plan.y), pixels_(along_.count()) {
    for (auto& values : values_) values.resize(along_.count());
  }

  // Calls paint(line, begin, end, pixels) for stretches of each line in order, in pixels of the image; those that lie
  // outside the object are left out. `pixels` are 0 or 1, or nullptr where all are 1.
  template <class F>
  void each(const F& paint) {
    for (int64_t line = 0; line < across_.count();) {
      const int32_t cell = across_.cell[line];
      enter(cell);
      for (; line < across_.count() && across_.cell[line] == cell; ++line) {
        for (const Stretch& s : stretches_) {
          if (s.kind == Cell::mixed) compute(line, s);
          paint(across_.start + line, along_.start + s.begin, along_.start + s.end,
                s.kind == Cell::mixed ? pixels_.data() + s.begin : nullptr);
        }
      }
    }
  }

 private:
  // Prepares the lines of this cell across.
  void enter(int32_t cell) {
    const int64_t step = kDown ? plan_.side : 1, row = kDown ? 1 : plan_.side;
    const T* values = plan_.values.data() + cell * row;
    const Cell* kinds = plan_.kind.data() + cell * row;
    stretches_.clear();
    for (int64_t i = 0; i < along_.count();) {
      const int64_t begin = i;
      const int32_t at = along_.cell[i];
      const Cell kind = kinds[at * step];
      while (i < along_.count() && along_.cell[i] == at) ++i;
      if (kind == Cell::empty) continue;
      if (kind == Cell::mixed) {
        const T* v = values + at * step;
        const T corners[] = {v[0], v[step], v[row], v[row + step]};
        for (int k = 0; k < 4; ++k) std::fill(values_[k].begin() + begin, values_[k].begin() + i, corners[k]);
      }
      if (!stretches_.empty() && stretches_.back().end == begin && stretches_.back().kind == kind) {
        stretches_.back().end = i;
      } else {
        stretches_.push_back({begin, i, kind});
      }
    }
  }

  void compute(int64_t line, const Stretch& s) {
    PasteLine<T> given{
        {}, along_.low.data() + s.begin, along_.high.data() + s.begin, across_.low[line], across_.high[line]};
    for (int k = 0; k < 4; ++k) given.values[k] = values_[k].data() + s.begin;
    kernels<T>().paste_pixels(given, plan_.sampled, kDown, plan_.threshold, s.end - s.begin, pixels_.data() + s.begin);
  }

  const PastePlan<T>& plan_;
  const PasteAxis<T>&along_, &across_;
  std::vector<Stretch> stretches_;
  std::vector<T> values_[4];
  std::vector<uint8_t> pixels_;
};

// COCO's compressed run-length code of an image, from its runs of object pixels in order.
class Code {
 public:
  // Pixels [begin, end) of the object.
  void add(int64_t begin, int64_t end) {
    if (begin == end_) {
      end_ = end;
      return;
    }
    close();
    write(begin - end_);
    begin_ = begin;
    end_ = end;
  }

  std::string finish(int64_t pixels) {
    close();
    if (runs_ == 0 || end_ < pixels) write(pixels - end_);
    return std::move(text_);
  }

 private:
  // Writes the run of the object that is open.
  void close() {
    if (end_ == 0) return;
    if (runs_ == 0) write(0);
    write(end_ - begin_);
  }

  // 5 bits a character, low ones first, with a sign; from the fourth run on, the difference to the run before the last.
  void write(int64_t run) {
    int64_t value = runs_ > 2 ? run - before_last_ : run;
    before_last_ = last_;
    last_ = run;
    ++runs_;
    for (bool more = true; more;) {
      const int64_t symbol = value & 31;
      value >>= 5;
      more = (symbol & 16) != 0 ? value != -1 : value != 0;
      text_.push_back(static_cast<char>((more ? symbol | 32 : symbol) + 48));
    }
  }

  std::string text_;
  int64_t runs_ = 0, last_ = 0, before_last_ = 0, begin_ = 0, end_ = 0;
};

// Adds the object's pixels among n, of which the first is pixel `at` of the image.
void add_pixels(const uint8_t* pixels, int64_t n, int64_t at, Code& code) {
  for (int64_t i = 0; i < n;) {
    while (i < n && pixels[i] == 0) ++i;
    const int64_t begin = i;
    while (i < n && pixels[i] != 0) ++i;
    if (i > begin) code.add(at + begin, at + i);
  }
}

template <class T>
std::string code_of(const PastePlan<T>& plan, int64_t height, int64_t width) {
  Code code;
  if (!plan.empty()) {
    Lines<T, true>(plan).each([&](int64_t column, int64_t begin, int64_t end, const uint8_t* pixels) {
      const int64_t at = column * height;
      if (pixels == nullptr) {
        code.add(at + begin, at + end);
      } else {
        add_pixels(pixels, end - begin, at + begin, code);
      }
    });
  }
  return code.finish(height * width);
}

template <class T>
void paint(const PastePlan<T>& plan, int64_t width, uint8_t* out) {
  if (plan.empty()) return;
  Lines<T, false>(plan).each([&](int64_t row, int64_t begin, int64_t end, const uint8_t* pixels) {
    uint8_t* to = out + row * width + begin;
    if (pixels == nullptr) {
      std::memset(to, 1, static_cast<size_t>(end - begin));
    } else {
      std::memcpy(to, pixels, static_cast<size_t>(end - begin));
    }
  });
}

// Calls body(i, plan) for every mask, on several threads if their boxes are large.
template <class F>
void each_mask(const Tensor& masks, const Tensor& boxes, const std::optional<Tensor>& mirrored, int64_t height,
               int64_t width, double threshold, const std::string& rule, double work, const F& body) {
  const int64_t n = masks.size(0), side = masks.size(2);
  const bool wide = masks.scalar_type() == ScalarType::Double || boxes.scalar_type() == ScalarType::Double;
  const ScalarType real = wide ? ScalarType::Double : real_type(masks.scalar_type());
  const Tensor m = cast_contiguous(masks, real), b = cast_contiguous(boxes, real);
  const std::optional<Tensor> flips = mirrored ? std::optional(torch::stable::contiguous(*mirrored)) : std::nullopt;
  const bool* flip = data<bool>(flips);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    const T *mask = data<T>(m), *box = data<T>(b);
    parallel(n, work, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        body(i, paste_plan<T>(mask + i * side * side, box + 4 * i, side, flip != nullptr && flip[i], height, width,
                              static_cast<T>(threshold), paste_rule(rule)));
      }
    });
    return 0;
  });
}

Tensor paste_masks(const Tensor& masks, const Tensor& boxes, const std::optional<Tensor>& mirrored, int64_t height,
                   int64_t width, double threshold, const std::string& rule) {
  Tensor out = empty({masks.size(0), height, width}, ScalarType::Bool);
  uint8_t* bytes = static_cast<uint8_t*>(out.mutable_data_ptr());
  const int64_t pixels = height * width;
  each_mask(masks, boxes, mirrored, height, width, threshold, rule, 5e3 + 0.3 * static_cast<double>(pixels),
            [&](int64_t i, const auto& plan) {
              std::memset(bytes + i * pixels, 0, static_cast<size_t>(pixels));
              paint(plan, width, bytes + i * pixels);
            });
  return out;
}

std::tuple<Tensor, Tensor> paste_mask_codes(const Tensor& masks, const Tensor& boxes,
                                            const std::optional<Tensor>& mirrored, int64_t height, int64_t width,
                                            double threshold, const std::string& rule) {
  std::vector<std::string> codes(masks.size(0));
  each_mask(masks, boxes, mirrored, height, width, threshold, rule, 20e3,
            [&](int64_t i, const auto& plan) { codes[i] = code_of(plan, height, width); });
  Tensor offsets = empty({masks.size(0) + 1}, ScalarType::Long);
  int64_t* offset = mutable_data<int64_t>(offsets);
  *offset = 0;
  for (const std::string& code : codes) {
    offset[1] = offset[0] + static_cast<int64_t>(code.size());
    ++offset;
  }
  Tensor text = empty({*offset}, ScalarType::Byte);
  uint8_t* to = mutable_data<uint8_t>(text);
  for (const std::string& code : codes) to = std::copy(code.begin(), code.end(), to);
  return {text, offsets};
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("paste_masks", TORCH_BOX(&det::paste_masks));
  m.impl("paste_mask_codes", TORCH_BOX(&det::paste_mask_codes));
}
