from det_core.specs import FeatureSpec
from $module import ${Part}Config

neck = ${Part}Config(channels=96).build(FeatureSpec(channels=(64, 128), strides=(4, 8)))
