"""A classifier in a script of one's own: no config, no command line, no MLflow."""

from tlkit import backbones, data, evaluation, training

splits = data.load("embedded", size=(32, 32), channels=1)  # or ("folder", path="photos", size=(224, 224))
model = backbones.classifier(backbones.build("LetterNet"), len(splits.classes))
history = training.fine_tune(model, splits, unfreeze_from="stage3", epochs=1)
split, photos = ("test", splits.test) if splits.test else ("validation", splits.val)
scores = evaluation.score(split, training.predict(model, photos), photos.labels)
print(f"{split} accuracy {scores.accuracy:.3f}, best epoch {history.best['epoch']}")
model.save("digits.keras")
