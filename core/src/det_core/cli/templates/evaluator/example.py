from $module import ${Part}Config

metric = ${Part}Config(iou=0.7)
